package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/cri/translate"
	"keelson.dev/keelson/cri/undo"
	"keelson.dev/keelson/image"
)

func (s *Server) podFile(id, name string) string {
	path := filepath.Join(s.podDir(id), name)
	if !exists(path) {
		return ""
	}
	return path
}

// logPath joins a pod's log directory and a container's log path, makes the
// directories between, and refuses whatever would lead out of the log directory:
// "..", an absolute path, a symlink on the way or at the end. The runtime opens
// the file itself with O_NOFOLLOW.
func logPath(dir, rel string) (string, error) {
	if dir == "" || rel == "" {
		return "", nil
	}
	if !filepath.IsLocal(rel) || filepath.Clean(rel) == "." || strings.ContainsRune(rel, 0) {
		return "", invalid("log path %q does not stay inside the log directory", rel)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("log directory: %w", err)
	}
	rel = filepath.Clean(rel)
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("log directory %s: %w", dir, err)
	}
	defer unix.Close(root)
	// One component at a time: openat2 refuses the links, mkdirat makes what is
	// missing in the directory just opened.
	at := root
	parts := strings.Split(rel, "/")
	for _, p := range parts[:len(parts)-1] {
		if err := unix.Mkdirat(at, p, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return "", fmt.Errorf("log directory %s in %s: %w", p, dir, err)
		}
		next, err := unix.Openat2(at, p, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
		if err != nil {
			return "", invalid("log path %q: %s is not a plain directory: %v", rel, p, err)
		}
		defer unix.Close(next)
		at = next
	}
	var st unix.Stat_t
	err = unix.Fstatat(at, parts[len(parts)-1], &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", invalid("log path %q exists and is not a regular file", rel)
	}
	return filepath.Join(dir, rel), nil
}

// resolveMounts finds each requested source on the host, or mounts its image.
func (s *Server) resolveMounts(ctx context.Context, rec *podstore.Container, pod *podstore.Sandbox, label string, back *undo.Stack) ([]translate.Mount, error) {
	var out []translate.Mount
	var propagating []string
	for i, m := range rec.Config.GetMounts() {
		src, err := s.mountSource(ctx, rec, pod, i, label, back)
		if err != nil {
			return nil, err
		}
		out = append(out, translate.Mount{Source: src, Request: m})
		if m.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE {
			propagating = append(propagating, src)
		}
	}
	if len(propagating) == 0 {
		return out, nil
	}
	peers, err := mountPeers(propagating)
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].Peer = peers[out[i].Source]
	}
	return out, nil
}

func (s *Server) mountSource(ctx context.Context, rec *podstore.Container, pod *podstore.Sandbox, n int, label string, back *undo.Stack) (string, error) {
	m := rec.Config.GetMounts()[n]
	if m.GetImage().GetImage() != "" {
		return s.imageVolume(ctx, rec, pod, n, label, back)
	}
	src := m.GetHostPath()
	if !filepath.IsAbs(src) {
		return "", invalid("host path %q of mount %s is not absolute", src, m.GetContainerPath())
	}
	real, err := filepath.EvalSymlinks(src)
	if errors.Is(err, fs.ErrNotExist) {
		// As every runtime does, though the CRI says to fail: pods in the field
		// count on it for hostPath volumes without a type.
		if err := os.MkdirAll(src, 0o755); err != nil {
			return "", fmt.Errorf("make host path of mount %s: %w", m.GetContainerPath(), err)
		}
		return src, nil
	}
	if err != nil {
		return "", fmt.Errorf("host path of mount %s: %w", m.GetContainerPath(), err)
	}
	return real, nil
}

// imageVolume mounts the image that the n-th mount names. Its files belong to the
// pod's users, as those of the root filesystem do.
func (s *Server) imageVolume(ctx context.Context, rec *podstore.Container, pod *podstore.Sandbox, n int, label string, back *undo.Stack) (string, error) {
	m := rec.Config.GetMounts()[n]
	img, err := s.deps.Images.Get(m.GetImage().GetImage())
	if err != nil {
		return "", fmt.Errorf("image %s of mount %s: %w", m.GetImage().GetImage(), m.GetContainerPath(), err)
	}
	id, ids := rec.ImageMounts[n], podNamespaces(pod.Config).GetUsernsOptions()
	back.Push("image volume", func(ctx context.Context) error { return s.deps.Rootfs.UnmountImage(ctx, id) })
	path, err := s.deps.Rootfs.MountImage(ctx, id, img.ID, image.ViewOptions{SubPath: m.GetImageSubPath(), UIDs: imageIDs(ids.GetUids()), GIDs: imageIDs(ids.GetGids()), Label: label})
	if err != nil {
		return "", fmt.Errorf("mount image %s at %s: %w", m.GetImage().GetImage(), m.GetContainerPath(), err)
	}
	rec.VolumeImages[n] = img.ID
	return path, nil
}

// reachable: the root of a user namespace, whose group on the node is gid, must
// come to its root filesystem like anybody.
func reachable(path string, gid uint32) error {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return &os.PathError{Op: "stat", Path: dir, Err: err}
		}
		if st.Mode&0o001 == 0 && (st.Mode&0o010 == 0 || st.Gid != gid) {
			return fmt.Errorf("%w: pods in user namespaces cannot reach their root filesystem through %s (mode %04o); chmod o+x it, or choose another data directory", errState, dir, st.Mode&0o7777)
		}
		if dir == "/" {
			return nil
		}
	}
}

// directories checks that the kernel's filesystems will be mounted where they
// belong: an image that has a link there would choose the place itself
// (CVE-2019-19921 and its kin). Nothing of the image runs yet, so what is seen
// here stays.
func directories(rootfs string) error {
	for _, name := range []string{"proc", "sys", "dev"} {
		info, err := os.Lstat(filepath.Join(rootfs, name))
		if err == nil && !info.IsDir() {
			return fmt.Errorf("its /%s is not a directory; the kernel's files are to be mounted there", name)
		}
	}
	return nil
}
