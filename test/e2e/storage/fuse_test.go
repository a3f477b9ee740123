package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/test/lab/labtest"
)

// fuse is a filesystem with one directory, "sub", whose server can hang and die.
type fuse struct {
	dir   string
	file  *os.File // whose closing ends the connection: whoever waits gets an error
	hangs atomic.Bool
}

// startFuse mounts one, or skips.
func startFuse(t *testing.T) *fuse {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("needs /dev/fuse: ", err)
	}
	f := &fuse{dir: filepath.Join(t.TempDir(), "volume")}
	if err := os.Mkdir(f.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("hangs", f.dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, "fd="+strconv.Itoa(fd)+",rootmode=40000,user_id=0,group_id=0,allow_other"); err != nil {
		unix.Close(fd)
		t.Skip("cannot mount FUSE: ", err)
	}
	f.file = os.NewFile(uintptr(fd), "fuse") // now: before, there is nothing to poll for
	go f.serve()                             // ends with the connection
	t.Cleanup(func() {
		f.die()
		_ = unix.Unmount(f.dir, unix.MNT_DETACH)
	})
	return f
}

func (f *fuse) hang() { f.hangs.Store(true) }

func (f *fuse) die() { _ = f.file.Close() }

// serve answers as linux/fuse.h says, attributes holding for no time, until it hangs.
func (f *fuse) serve() {
	buf := make([]byte, 1<<20)
	for {
		n, err := f.file.Read(buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT):
			continue
		case err != nil: // the connection has ended
			return
		}
		if n < 40 || f.hangs.Load() {
			continue // taken and never answered
		}
		le := binary.LittleEndian
		op, node := le.Uint32(buf[4:]), le.Uint64(buf[16:])
		var body []byte
		code := int32(0)
		switch op {
		case 2, 42: // FORGET, BATCH_FORGET want no answer
			continue
		case 26: // INIT: 7.31
			body = make([]byte, 64)
			le.PutUint32(body, 7)
			le.PutUint32(body[4:], 31)
			le.PutUint32(body[20:], 1<<16) // max_write
		case 1: // LOOKUP
			if strings.TrimRight(string(buf[40:n]), "\x00") != "sub" || node != 1 {
				code = -int32(unix.ENOENT)
				break
			}
			body = make([]byte, 40+88)
			le.PutUint64(body, 2)
			directory(body[40:], 2)
		case 3: // GETATTR
			body = make([]byte, 16+88)
			directory(body[16:], node)
		case 27: // OPENDIR
			body = make([]byte, 16)
		case 28, 29, 34: // READDIR of nothing, RELEASEDIR, ACCESS
		case 17: // STATFS
			body = make([]byte, 80)
		default:
			code = -int32(unix.ENOSYS)
		}
		out := make([]byte, 16, 16+len(body))
		le.PutUint32(out, uint32(16+len(body)))
		le.PutUint32(out[4:], uint32(code))
		copy(out[8:], buf[8:16])
		_, _ = f.file.Write(append(out, body...))
	}
}

// directory fills a struct fuse_attr.
func directory(attr []byte, inode uint64) {
	binary.LittleEndian.PutUint64(attr, inode)
	binary.LittleEndian.PutUint32(attr[60:], unix.S_IFDIR|0o755)
	binary.LittleEndian.PutUint32(attr[64:], 2) // links
}

// PS21: the FUSE server behind a hostPath and a subPath hangs or dies under running pods and under pods that are starting: each says what is
// wrong, each can be deleted, and the pods beside them live on.
func TestHostile_PS21(t *testing.T) {
	c := labtest.Cluster(t)
	manifest := func(name, dir, typ, subPath string) string {
		return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, hostPath: {path: %s, type: %q}}]
  containers: [{name: a, image: "busybox:1.28", command: [sleep, "36000"], volumeMounts: [{name: v, mountPath: /v, subPath: %q}]}]
`, name, dir, typ, subPath)
	}
	says := func(pod, want string) {
		t.Helper()
		labtest.Eventually(t, pod+" says what is wrong", func() string {
			out := labtest.Kubectl(t, c, "get", "events", "--field-selector", "involvedObject.name="+pod, "-o", "jsonpath={.items[*].message}")
			if !strings.Contains(out, want) {
				return fmt.Sprintf("want %q in %q", want, out)
			}
			return ""
		})
	}
	deleted := func(pods ...string) {
		t.Helper()
		for _, pod := range pods {
			if out, errs, err := c.Kubectl(t.Context(), "delete", "pod", pod, "--timeout="+labtest.Patience.String()); err != nil {
				story, _, _ := c.Kubectl(t.Context(), "describe", "pod", pod)
				t.Errorf("%s cannot be deleted: %s%s\n%s", pod, out, errs, story)
			}
		}
	}
	for _, row := range []struct {
		what string
		end  func(*fuse)
		says string
	}{
		{"hangs", (*fuse).hang, "the filesystem does not answer; its server (FUSE, NFS) hangs or is gone"},
		{"dies", (*fuse).die, "transport endpoint is not connected"},
	} {
		t.Run(row.what, func(t *testing.T) {
			f := startFuse(t)
			names := []string{}
			begin := func(name, typ, subPath string) {
				names = append(names, row.what+"-"+name)
				labtest.Apply(t, c, manifest(row.what+"-"+name, f.dir, typ, subPath))
			}
			begin("whole", "Directory", "")
			begin("part", "", "sub")
			for _, name := range names {
				labtest.WaitPod(t, c, name, "condition=Ready")
			}
			row.end(f)
			begin("late-whole", "", "")
			begin("late-typed", "Directory", "")
			begin("late-part", "", "sub")
			for _, name := range names[2:] {
				says(name, row.says)
			}
			labtest.Apply(t, c, manifest(row.what+"-beside", t.TempDir(), "Directory", ""))
			labtest.WaitPod(t, c, row.what+"-beside", "condition=Ready")
			deleted(append(names, row.what+"-beside")...)
		})
	}
}
