package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

var cuts = flag.Int("cuts", 4, "how often the disk of the data loses its power")

// ND11: power is cut while objects are written, and all that the disk had not been told to keep is lost. The server always starts
// again, with every object that it acknowledged.
func TestHostile_ND11(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("", "keelson-lab-")
	if err != nil {
		t.Fatal(err)
	}
	disk, data := filepath.Join(dir, "disk"), filepath.Join(dir, "data")
	if err := errors.Join(os.Chmod(dir, 0o711), os.Mkdir(data, 0o700), os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 512<<20)); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	run("mkfs.ext4", "-q", "-F", disk)
	run("mount", "-o", "loop", disk, data)
	c, err := lab.New(lab.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Kill(), c.Remove(context.Background())); err != nil { // which unmounts the data too
			t.Error(err)
		}
	})
	kept := map[string]string{}
	for cut := range *cuts + 1 {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitReady(t.Context()); err != nil {
			t.Fatalf("start after %d cuts: %v", cut, err)
		}
		maps := labtest.Client(t, c).CoreV1().ConfigMaps("default")
		list, err := maps.List(t.Context(), metav1.ListOptions{LabelSelector: "cut"})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list.Items {
			if kept[m.Name] == string(m.UID) {
				delete(kept, m.Name)
			}
		}
		if len(kept) > 0 {
			t.Fatalf("after %d cuts, %d of the acknowledged objects are gone: %v", cut, len(kept), kept)
		}
		for _, m := range list.Items {
			kept[m.Name] = string(m.UID)
		}
		if cut == *cuts {
			break
		}
		var dark atomic.Bool // from here on nobody hears an answer: a sync that meets the cut may be told that it succeeded
		off := time.AfterFunc(time.Duration(rand.Int64N(int64(700*time.Millisecond))), func() {
			dark.Store(true)
			cutPower(t, data)
		})
		for i := 0; ; i++ {
			m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m-%d-%d", cut, i), Labels: map[string]string{"cut": fmt.Sprint(cut)}},
				BinaryData: map[string][]byte{"data": bytes.Repeat([]byte{byte(i)}, 1000)}}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			got, err := maps.Create(ctx, m, metav1.CreateOptions{})
			cancel()
			if err != nil || dark.Load() {
				break
			}
			kept[m.Name] = string(got.UID)
		}
		off.Stop()
		cutPower(t, data)
		if err := c.Kill(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the disk is free", func() string {
			if err := unix.Unmount(data, 0); err != nil {
				return err.Error()
			}
			return ""
		})
		run("mount", "-o", "loop", disk, data)
	}
	t.Logf("%d objects were kept over %d cuts", len(kept), *cuts)
}

// cutPower ends all writing to a filesystem at once, its journal included (EXT4_IOC_SHUTDOWN with NOLOGFLUSH).
func cutPower(t *testing.T, dir string) {
	const (
		shutdown   = 0x8004587d // _IOR('X', 125, __u32)
		noLogFlush = uint32(2)
		isOff      = unix.EIO
	)
	f, err := os.Open(dir)
	if err != nil {
		if !errors.Is(err, isOff) {
			t.Error(err)
		}
		return
	}
	defer f.Close()
	flags := noLogFlush
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&flags))); errno != 0 && errno != isOff {
		t.Errorf("cut the power of %s: %v", dir, errno)
	}
}
