package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/volume/mount"
)

// helper puts a program "mount" in front of the node's, which notes its arguments and does what the script says; $at is the folder.
func helper(t *testing.T, script string) (calls func() []string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "calls")
	text := "#!/bin/sh\nfor at; do :; done\necho \"$@\" >>" + log + "\nPATH=" + os.Getenv("PATH") + "\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(dir, "mount"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() []string {
		b, _ := os.ReadFile(log)
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
}

func nfsPod(uid string, readOnly bool) *corev1.Pod {
	p := pod(vol("v", corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "192.0.2.7", Path: "/export", ReadOnly: readOnly}}))
	p.UID = types.UID(uid)
	return p
}

// An NFS volume is mounted by the node's own program, once, and unmounted; what the program says is what the pod's Event says.
func TestNFS(t *testing.T) {
	m, _ := setup(t)
	calls := helper(t, "exec mount -t tmpfs fake $at")
	p := nfsPod("a", true)
	for range 2 {
		got, err := m.Mount(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if there, err := mount.Listed(got["v"].HostPath); !there || err != nil {
			t.Errorf("%s is not mounted: %v", got["v"].HostPath, err)
		}
		if _, err := m.SubPath(t.Context(), p, "c", 0, got["v"], "v", "part"); err != nil {
			t.Error(err)
		}
	}
	want := "-t nfs -o ro 192.0.2.7:/export " + filepath.Join(m.podDir(p.UID), "volumes", "kubernetes.io~nfs", "v")
	if got := calls(); !slices.Equal(got, []string{want}) {
		t.Errorf("called with %q, want %q once", got, want)
	}
	if err := m.Unmount(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.podDir(p.UID)); !os.IsNotExist(err) {
		t.Errorf("the pod's folder: %v", err)
	}
	helper(t, "echo mount.nfs: access denied by server while mounting; exit 32")
	_, err := m.Mount(t.Context(), p)
	for _, want := range []string{`MountVolume.SetUp failed for volume "v"`, "mount failed: exit status 32", "Mounting arguments: -t nfs -o ro 192.0.2.7:/export", "access denied by server"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func TestNFSArguments(t *testing.T) {
	source := func(server string, ro bool) *corev1.NFSVolumeSource {
		return &corev1.NFSVolumeSource{Server: server, Path: "/x", ReadOnly: ro}
	}
	persistent := func(s *corev1.NFSVolumeSource, options ...string) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{MountOptions: options, PersistentVolumeSource: corev1.PersistentVolumeSource{NFS: s}}}
	}
	for _, row := range []struct {
		r    Request
		want string
	}{
		{Request{Volume: &corev1.Volume{VolumeSource: corev1.VolumeSource{NFS: source("host", false)}}}, "-t nfs host:/x /d"},
		{Request{Volume: &corev1.Volume{VolumeSource: corev1.VolumeSource{NFS: source("2001:db8::1", true)}}}, "-t nfs -o ro [2001:db8::1]:/x /d"},
		{Request{Volume: &corev1.Volume{}, Persistent: persistent(source("host", false), "nfsvers=4.1", "hard")}, "-t nfs -o nfsvers=4.1,hard host:/x /d"},
		{Request{Volume: &corev1.Volume{}, Persistent: persistent(source("host", true), "soft")}, "-t nfs -o ro,soft host:/x /d"},
		{Request{Volume: &corev1.Volume{}, Persistent: persistent(source("host", false)), ReadOnly: true}, "-t nfs -o ro host:/x /d"},
	} {
		row.r.Dir = "/d"
		if got := strings.Join(nfsArguments(row.r), " "); got != row.want {
			t.Errorf("got %q, want %q", got, row.want)
		}
	}
}

// PS21: a server that does not answer holds up the pods that want it, not others; their deletion ends the program that waits for it.
func TestHostile_PS21(t *testing.T) {
	m, _ := setup(t)
	pids := t.TempDir()
	calls := helper(t, "echo $$ >"+pids+"/$(basename $(dirname $(dirname $(dirname $at)))); exec sleep 10000")
	p := nfsPod("hangs", false)
	pidFile := filepath.Join(pids, string(p.UID))
	waiting := func() (pid int) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			b, _ := os.ReadFile(pidFile)
			if _, err := fmt.Sscan(string(b), &pid); err == nil {
				return pid
			}
			if time.Now().After(deadline) {
				t.Fatal("mount was not called")
			}
		}
	}
	var pid int
	for range 2 { // each time the pod is looked at
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { _, err := m.Mount(ctx, p); done <- err }()
		pid = waiting()
		other := pod(vol("v", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}))
		if _, err := m.Mount(t.Context(), other); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err == nil {
			t.Error("a volume of a server that does not answer is mounted")
		}
	}
	if got := calls(); len(got) != 1 {
		t.Errorf("mount was called %d times, want one that waits: %q", len(got), got)
	}
	if err := m.Unmount(t.Context(), p.UID); err != nil {
		t.Error(err)
	}
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Errorf("the program that waited for the server: %v", err)
	}
	if _, err := os.Stat(m.podDir(p.UID)); !os.IsNotExist(err) {
		t.Errorf("the pod's folder: %v", err)
	}
}
