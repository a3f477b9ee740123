package podstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func sandbox(id, name string) *Sandbox {
	return &Sandbox{
		ID: id, State: Creating, CreatedAt: time.Unix(5, 7).UTC(),
		Config: &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "ns", Uid: "u"},
			Labels:   map[string]string{"a": "b"},
			Linux:    &runtimeapi.LinuxPodSandboxConfig{Sysctls: map[string]string{"net.x": "1"}},
		},
		NetNSPath: "/n", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
	}
}

func open(t *testing.T, dir string) *Table[*Sandbox] {
	t.Helper()
	tab, err := Open[*Sandbox](dir)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func create(t *testing.T, tab *Table[*Sandbox], s *Sandbox) *Sandbox {
	t.Helper()
	if _, owner, err := tab.Reserve(t.Context(), s); err != nil || !owner {
		t.Fatalf("reserve %s: owner %v, %v", s.ID, owner, err)
	}
	done := *s
	done.State = Created
	if err := tab.Commit(&done); err != nil {
		t.Fatal(err)
	}
	return &done
}

func TestRecordsSurviveReopening(t *testing.T) {
	dir := t.TempDir()
	want := create(t, open(t, dir), sandbox("aaaaaa", "web"))
	got, err := open(t, dir).Get("aaaaaa")
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got.Config, want.Config) || got.State != Created || !got.CreatedAt.Equal(want.CreatedAt) || got.IPs[0] != want.IPs[0] || got.NetNSPath != "/n" {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestContainerRecordKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	tab, err := Open[*Container](dir)
	if err != nil {
		t.Fatal(err)
	}
	c := &Container{
		ID: "cccccc", SandboxID: "aaaaaa", State: Creating, Config: &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "c", Attempt: 3}},
		ImageID: "sha256:x", LogPath: "/l", StopSignal: 15, Process: &specs.Process{Args: []string{"a"}, Env: []string{"S=secret"}},
		Resources: &runtimeapi.LinuxContainerResources{CpuShares: 7}, ImageMounts: map[int]string{0: "m"},
	}
	if _, owner, err := tab.Reserve(t.Context(), c); !owner || err != nil {
		t.Fatal(owner, err)
	}
	again, err := Open[*Container](dir)
	if err != nil {
		t.Fatal(err)
	}
	left := again.Unfinished()
	if len(left) != 1 || left[0].Config.GetMetadata().GetAttempt() != 3 || left[0].Resources.GetCpuShares() != 7 || left[0].Process.Args[0] != "a" || left[0].ImageMounts[0] != "m" {
		t.Errorf("unfinished after reopening: %+v", left)
	}
	fi, err := os.Stat(filepath.Join(dir, "cccccc.json"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("record with an environment is readable by others: %v, %v", fi.Mode(), err)
	}
}

func TestNilConfigParts(t *testing.T) {
	dir := t.TempDir()
	tab, err := Open[*Container](dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tab.Reserve(t.Context(), &Container{ID: "dddddd", State: Creating}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open[*Container](dir); err != nil {
		t.Fatal(err)
	}
}

// A second creation of a name waits for the first and gets its result, whichever
// it is.
func TestReserveWaits(t *testing.T) {
	for _, c := range []struct {
		name      string
		end       func(*Table[*Sandbox], *Sandbox) error
		wantOwner bool
	}{
		{"first succeeds", func(tab *Table[*Sandbox], s *Sandbox) error {
			done := *s
			done.State = Created
			return tab.Commit(&done)
		}, false},
		{"first fails", func(tab *Table[*Sandbox], s *Sandbox) error { return tab.Delete(s.ID) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tab := open(t, t.TempDir())
				first := sandbox("aaaaaa", "web")
				if _, owner, err := tab.Reserve(t.Context(), first); !owner || err != nil {
					t.Fatal(owner, err)
				}
				var owner bool
				var have *Sandbox
				ended := false
				go func() {
					have, owner, _ = tab.Reserve(t.Context(), sandbox("bbbbbb", "web"))
					ended = true
				}()
				synctest.Wait()
				if ended {
					t.Fatal("the second reservation did not wait")
				}
				if err := c.end(tab, first); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if !ended || owner != c.wantOwner || (!owner && have.ID != "aaaaaa") {
					t.Errorf("ended %v, owner %v, have %v", ended, owner, have)
				}
			})
		})
	}
}

func TestReserveGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := open(t, t.TempDir())
		if _, _, err := tab.Reserve(t.Context(), sandbox("aaaaaa", "web")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := tab.Reserve(ctx, sandbox("bbbbbb", "web")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}
	})
}

func TestCreatingIsInvisible(t *testing.T) {
	tab := open(t, t.TempDir())
	if _, _, err := tab.Reserve(t.Context(), sandbox("aaaaaa", "web")); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Get("aaaaaa"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of a half-made object: %v", err)
	}
	if l := tab.List(); len(l) != 0 {
		t.Errorf("List shows %v", l)
	}
}

func TestGetByPrefix(t *testing.T) {
	tab := open(t, t.TempDir())
	create(t, tab, sandbox("abcd11", "a"))
	create(t, tab, sandbox("abcd22", "b"))
	for id, ok := range map[string]bool{"abcd1": true, "abcd": false, "abc": false, "abcd2": true, "": false, "zzzz": false} {
		if _, err := tab.Get(id); (err == nil) != ok {
			t.Errorf("Get(%q): %v, want found %v", id, err, ok)
		}
	}
}

func TestDeleteIsIdempotentAndFreesTheName(t *testing.T) {
	tab := open(t, t.TempDir())
	s := create(t, tab, sandbox("aaaaaa", "web"))
	for range 2 {
		if err := tab.Delete(s.ID); err != nil {
			t.Fatal(err)
		}
	}
	create(t, tab, sandbox("bbbbbb", "web"))
}

func TestBadRecordIsSetAside(t *testing.T) {
	dir := t.TempDir()
	create(t, open(t, dir), sandbox("aaaaaa", "web"))
	for name, text := range map[string]string{"bbbbbb.json": "{", "cccccc.json": `{"ID":"other"}`, ".tmp-1": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tab, err := Open[*Sandbox](dir)
	if err == nil || tab == nil || len(tab.List()) != 1 {
		t.Fatalf("open: %v, table %v", err, tab)
	}
	if _, err := Open[*Sandbox](dir); err != nil {
		t.Errorf("the second open still complains: %v", err)
	}
}

func TestAbandonFreesTheNameAndKeepsTheRecord(t *testing.T) {
	dir := t.TempDir()
	tab := open(t, dir)
	if _, _, err := tab.Reserve(t.Context(), sandbox("aaaaaa", "web")); err != nil {
		t.Fatal(err)
	}
	tab.Abandon("aaaaaa")
	create(t, tab, sandbox("bbbbbb", "web"))
	again := open(t, dir)
	if u := again.Unfinished(); len(u) != 1 || u[0].ID != "aaaaaa" {
		t.Errorf("unfinished: %v", u)
	}
	if err := again.Delete("aaaaaa"); err != nil {
		t.Fatal(err)
	}
	if have, owner, err := again.Reserve(t.Context(), sandbox("cccccc", "web")); owner || err != nil || have.ID != "bbbbbb" {
		t.Errorf("the name's owner after reopening: %v, %v, %v", have, owner, err)
	}
}

func TestManyCreatorsOneWinner(t *testing.T) {
	tab := open(t, t.TempDir())
	var wg sync.WaitGroup
	var mu sync.Mutex
	owners := 0
	for i := range 32 {
		wg.Go(func() {
			s := sandbox(fmt.Sprintf("id%04d", i), "web")
			_, owner, err := tab.Reserve(t.Context(), s)
			if err != nil {
				t.Error(err)
			}
			if owner {
				mu.Lock()
				owners++
				mu.Unlock()
				s2 := *s
				s2.State = Created
				if err := tab.Commit(&s2); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if owners != 1 {
		t.Errorf("%d creators own the name", owners)
	}
}
