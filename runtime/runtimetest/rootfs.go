package runtimetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

var sharedRootfs struct {
	once sync.Once
	dir  string
	err  error
}

// rootfs is a root filesystem of busybox, made once for a run of tests and
// shared by their containers.
func rootfs(t testing.TB) string {
	t.Helper()
	r := &sharedRootfs
	r.once.Do(func() { r.dir, r.err = makeRootfs() })
	if r.err != nil {
		t.Fatalf("make root filesystem: %v", r.err)
	}
	return r.dir
}

// RemoveRootfs removes the shared root filesystem; TestMain calls it.
func RemoveRootfs() {
	if sharedRootfs.dir != "" {
		os.RemoveAll(sharedRootfs.dir)
	}
}

func makeRootfs() (string, error) {
	dir, err := os.MkdirTemp("/tmp", "keelson-test-rootfs-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	for _, name := range []string{"bin", "proc", "sys", "dev", "tmp", "etc", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return dir, err
		}
	}
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o1777); err != nil {
		return dir, err
	}
	program, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		return dir, err
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), program, 0o755); err != nil {
		return dir, err
	}
	passwd := "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n"
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte(passwd), 0o644); err != nil {
		return dir, err
	}
	for _, applet := range []string{
		"sh", "sleep", "echo", "cat", "true", "false", "seq", "yes", "head", "dd", "printf", "kill", "id",
		"ls", "touch", "env", "hostname", "stty", "tty", "wc", "mount", "ps", "test", "tail", "setsid", "grep", "usleep", "readlink", "mkdir", "unshare", "chroot", "date", "mknod", "chown", "tr", "rm", "ln", "umount", "awk", "sort", "od", "sync", "hexdump", "uname", "stat", "nice",
	} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", applet)); err != nil {
			return dir, err
		}
	}
	return dir, exec.Command(filepath.Join(dir, "bin/busybox"), "true").Run()
}
