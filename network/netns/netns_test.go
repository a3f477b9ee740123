package netns

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson.dev/keelson/network/netfilter/netfiltertest"
)

func TestMain(m *testing.M) { netfiltertest.Main(m) }

func link(t *testing.T, path string) string {
	t.Helper()
	s, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCreateDoRemove(t *testing.T) {
	netfiltertest.Need(t)
	path := filepath.Join(t.TempDir(), "a")
	home, inside := link(t, self), ""
	if err := Create(path, func() error { inside = link(t, self); return nil }); err != nil {
		t.Fatal(err)
	}
	defer Remove(path)
	if inside == home || !Pinned(path) {
		t.Fatalf("inside %s, home %s, pinned %v", inside, home, Pinned(path))
	}
	if err := Create(path, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("second create: %v, want exists", err)
	}
	var links []net.Interface
	if err := Do(path, func() (err error) {
		if got := link(t, self); got != inside {
			t.Errorf("Do ran in %s, want %s", got, inside)
		}
		links, err = net.Interfaces()
		return err
	}); err != nil || len(links) == 0 || links[0].Flags&net.FlagUp != 0 {
		t.Errorf("a new namespace has %v, %v; want lo, down", links, err)
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) || Pinned(path) {
		t.Errorf("after remove: %v", err)
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	netfiltertest.Need(t)
	path := filepath.Join(t.TempDir(), "a")
	boom := errors.New("boom")
	if err := Create(path, func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// The first thread of a process cannot end. Were it used, the process would stay in a pod's namespace for good.
func TestNoThreadStaysBehind(t *testing.T) {
	netfiltertest.Need(t)
	home, dir := link(t, self), t.TempDir()
	for range 200 {
		path := filepath.Join(dir, "a")
		if err := Create(path, nil); err != nil {
			t.Fatal(err)
		}
		if err := Do(path, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		if err := Remove(path); err != nil {
			t.Fatal(err)
		}
		if got := link(t, "/proc/self/ns/net"); got != home {
			t.Fatalf("the process's first thread is in %s, home is %s", got, home)
		}
	}
	if b, _ := os.ReadFile("/proc/mounts"); strings.Contains(string(b), dir+"/") {
		t.Error("a pin is left")
	}
}
