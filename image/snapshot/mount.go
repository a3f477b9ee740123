package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Record says what a mount is made of; it is on disk before the mount is.
type Record struct {
	Image    string   `json:"image"`            // image ID, for the caller
	Layers   []string `json:"layers"`           // names below layers/, topmost first
	Chains   []string `json:"chains,omitempty"` // the caller's own names of the layers
	ReadOnly bool     `json:"readOnly,omitempty"`
	UIDs     []IDMap  `json:"uids,omitempty"`
	GIDs     []IDMap  `json:"gids,omitempty"`
	SubPath  string   `json:"subPath,omitempty"` // of a view
	Label    string   `json:"label,omitempty"`   // SELinux', of all files
}

// IDMap shifts Size ids: what is Container in the image's files is Host on the node.
type IDMap struct {
	Container, Host, Size uint32
}

// Mount stacks rec's layers with a fresh writable layer (none if ReadOnly) and
// mounts them. The path is the root filesystem. When id is mounted already, that
// mount is returned, whatever rec says.
func (s *Store) Mount(id string, rec Record) (string, error) {
	if err := checkID(id); err != nil {
		return "", err
	}
	base := filepath.Join(s.dir, "containers", id)
	root := filepath.Join(base, "rootfs")
	if mounted(root) {
		return root, nil
	}
	if err := s.discard(base); err != nil { // an upper directory is never used twice
		return "", err
	}
	if err := s.prepare(base, rec); err != nil {
		return "", errors.Join(err, s.discard(base))
	}
	atPrepared.Reach()
	if err := s.overlay(base, rec); err != nil {
		return "", errors.Join(fmt.Errorf("mount root filesystem of %s: %w", id, err), s.discard(base))
	}
	atMounted.Reach()
	return root, nil
}

// prepare makes a container's directories and its record.
func (s *Store) prepare(base string, rec Record) error {
	mode := os.FileMode(0o700)
	if len(rec.GIDs) > 0 {
		mode = 0o710 // the container's root, as its group, may pass; nobody else
	}
	if err := os.Mkdir(base, mode); err != nil {
		return fmt.Errorf("make container directory: %w", err)
	}
	if len(rec.GIDs) > 0 {
		if err := os.Chown(base, 0, int(hostID(rec.GIDs, 0))); err != nil {
			return fmt.Errorf("make container directory: %w", err)
		}
	}
	if err := os.Chmod(base, mode); err != nil {
		return fmt.Errorf("make container directory: %w", err)
	}
	b, err := json.Marshal(rec)
	if err == nil {
		err = os.WriteFile(filepath.Join(base, "record"), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write container record: %w", err)
	}
	names := []string{"rootfs", "upper", "work"}
	if rec.ReadOnly {
		names = names[:1]
	}
	for _, d := range names {
		if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
			return fmt.Errorf("make container directory: %w", err)
		}
	}
	if rec.ReadOnly || len(rec.Layers) == 0 {
		return nil
	}
	return s.likeLayer(filepath.Join(base, "upper"), rec)
}

// likeLayer gives the writable layer's root the topmost layer's owner and mode,
// which are what the container sees of /.
func (s *Store) likeLayer(upper string, rec Record) error {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(s.dir, "layers", rec.Layers[0]), &st); err != nil {
		return fmt.Errorf("stat layer: %w", err)
	}
	if err := os.Chown(upper, int(hostID(rec.UIDs, st.Uid)), int(hostID(rec.GIDs, st.Gid))); err != nil {
		return fmt.Errorf("make writable layer: %w", err)
	}
	if err := unix.Chmod(upper, st.Mode&0o7777); err != nil {
		return fmt.Errorf("make writable layer: %w", err)
	}
	return nil
}

// hostID maps id, or is id itself when nothing maps it.
func hostID(maps []IDMap, id uint32) uint32 {
	for _, m := range maps {
		if id >= m.Container && id-m.Container < m.Size {
			return m.Host + (id - m.Container)
		}
	}
	return id
}

// Unmount takes id's mount away and removes its writable layer. Idempotent.
func (s *Store) Unmount(id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	return s.unmountAll(filepath.Join(s.dir, "containers", id), "rootfs")
}

func (s *Store) unmountAll(base string, names ...string) error {
	for _, n := range names {
		p := filepath.Join(base, n)
		for mounted(p) {
			if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
				return fmt.Errorf("unmount %s: %w", p, err)
			}
		}
	}
	atUnmounted.Reach()
	return s.discard(base)
}

// mounted says whether something is mounted on p itself.
func mounted(p string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, p, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	return err == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// MountView mounts rec's layers read-only, for use as a volume, and returns the
// path of rec.SubPath in it (symlinks resolved inside the image), a directory or a
// file. When id is mounted already, that mount is returned.
func (s *Store) MountView(id string, rec Record) (string, error) {
	if err := checkID(id); err != nil {
		return "", err
	}
	base := filepath.Join(s.dir, "views", id)
	root, sub := filepath.Join(base, "rootfs"), filepath.Join(base, "sub")
	if mounted(sub) {
		return sub, nil
	}
	if err := s.UnmountView(id); err != nil { // half of an earlier try
		return "", err
	}
	rec.ReadOnly = true
	err := s.prepare(base, rec)
	if err == nil {
		err = os.Chmod(base, 0o711) // a volume is bound into containers of any user namespace
	}
	if err == nil {
		err = s.overlay(base, rec)
	}
	if err == nil {
		atViewed.Reach()
		err = bindSub(root, sub, rec.SubPath)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("mount image volume %s: %w", id, err), s.UnmountView(id))
	}
	return sub, nil
}

// UnmountView is MountView's undo. Idempotent.
func (s *Store) UnmountView(id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	return s.unmountAll(filepath.Join(s.dir, "views", id), "sub", "rootfs")
}

// bindSub mounts what subPath names below root at target, by descriptor: the
// image's symlinks resolve inside root and nowhere else.
func bindSub(root, target, subPath string) error {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open image root: %w", err)
	}
	defer unix.Close(dir)
	if subPath == "" {
		subPath = "."
	}
	fd, err := unix.Openat2(dir, subPath, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return fmt.Errorf("subPath %.200q in the image: %w", subPath, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("subPath %.200q in the image: %w", subPath, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = os.Mkdir(target, 0o755)
	case unix.S_IFREG:
		err = os.WriteFile(target, nil, 0o644)
	default:
		return fmt.Errorf("subPath %.200q in the image: neither a directory nor a file", subPath)
	}
	if err != nil {
		return err
	}
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// Recover removes what no run of ours wants any more: drafts, layers for which
// keep is false, records without mounts and mounts without records. It returns
// the records of the container mounts and views that live on.
func (s *Store) Recover(keep func(layer string) bool) (containers, views map[string]Record, err error) {
	ents, err := os.ReadDir(filepath.Join(s.dir, "layers"))
	if err != nil {
		return nil, nil, fmt.Errorf("recover layers: %w", err)
	}
	if containers, err = s.recoverMounts("containers", "rootfs", "rootfs"); err != nil {
		return nil, nil, err
	}
	if views, err = s.recoverMounts("views", "sub", "sub", "rootfs"); err != nil {
		return nil, nil, err
	}
	used := map[string]bool{}
	for _, recs := range []map[string]Record{containers, views} {
		for _, r := range recs {
			for _, l := range r.Layers {
				used[l] = true
			}
		}
	}
	for _, e := range ents {
		if used[e.Name()] || keep(e.Name()) {
			continue
		}
		if err := s.RemoveLayer(e.Name()); err != nil {
			return nil, nil, err
		}
	}
	return containers, views, nil
}

func (s *Store) recoverMounts(kind, mark string, names ...string) (map[string]Record, error) {
	dir := filepath.Join(s.dir, kind)
	ents, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("recover mounts: %w", err)
	}
	out := map[string]Record{}
	for _, e := range ents {
		base := filepath.Join(dir, e.Name())
		var rec Record
		b, err := os.ReadFile(filepath.Join(base, "record"))
		if err == nil {
			err = json.Unmarshal(b, &rec)
		}
		if err == nil && mounted(filepath.Join(base, mark)) {
			out[e.Name()] = rec
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("unreadable mount record dropped", "id", e.Name(), "err", err)
		}
		if err := s.unmountAll(base, names...); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// LayerName is the directory name of the n-th layer: short, since a mount names
// hundreds of them in one page.
func LayerName(n uint64) string { return strconv.FormatUint(n, 36) }

// Next is the first number above those of all layers that are here.
func (s *Store) Next() uint64 {
	next := uint64(0)
	ents, err := os.ReadDir(filepath.Join(s.dir, "layers"))
	if err != nil {
		return next
	}
	for _, e := range ents {
		if n, err := strconv.ParseUint(e.Name(), 36, 64); err == nil && LayerName(n) == e.Name() && n < 1<<48 {
			next = max(next, n+1)
		}
	}
	return next
}
