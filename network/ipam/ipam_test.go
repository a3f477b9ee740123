package ipam

import (
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"time"
)

// A range in which pods come and go faster than the quarantine: addresses come again, the one that rested longest first.
func TestAddressesOfABusyRangeComeAgain(t *testing.T) {
	now := time.Unix(0, 0)
	dir := t.TempDir()
	p, _, err := Open[string](Config{Range: netip.MustParsePrefix("10.0.0.0/29"), Dir: filepath.Join(dir, "ipam"),
		CursorFile: filepath.Join(dir, "cursor"), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	var given []netip.Addr
	for range 5 {
		l, err := p.Reserve("pod")
		if err != nil {
			t.Fatal(err)
		}
		given = append(given, l.Addr)
	}
	for _, i := range []int{3, 1} {
		if err := p.Release(given[i]); err != nil {
			t.Fatal(err)
		}
		now = now.Add(700 * time.Millisecond)
	}
	l, err := p.Reserve("pod")
	if err != nil || l.Addr != given[3] {
		t.Errorf("given %v (%v), want %s, which rested longest", l.Addr, err, given[3])
	}
	if _, err := p.Reserve("pod"); !errors.Is(err, ErrExhausted) {
		t.Errorf("%v, want ErrExhausted: the other one rested 0.7 s", err)
	}
	now = now.Add(300 * time.Millisecond)
	if l, err := p.Reserve("pod"); err != nil || l.Addr != given[1] {
		t.Errorf("given %v (%v), want %s after a second's rest", l.Addr, err, given[1])
	}
}
