package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrExhausted means that no address is free.
var ErrExhausted = errors.New("no free pod address")

// leastRest is how long a released address rests even when there is no other: what its peers still send to the old pod must not
// reach a new one.
const leastRest = time.Second

// Config describes the range and where it is kept.
type Config struct {
	Range      netip.Prefix     // IPv4, /16 to /30
	Dir        string           // one file per address
	CursorFile string           // the place in the rotation
	Quarantine time.Duration    // how long a released address rests if there are others; default 10 s
	Now        func() time.Time // default time.Now
}

// Pool is a range of addresses. Safe for concurrent use. T is the owner's record, kept as JSON.
type Pool[T any] struct {
	cfg  Config
	size int // addresses in the range

	mu     sync.Mutex
	used   map[int]bool
	rest   map[int]time.Time // released at
	cursor int               // the slot given last
}

// Lease is a reserved address. Slot is its place in the range: small, unique, good for names.
type Lease[T any] struct {
	Slot   int
	Addr   netip.Addr
	Record T
	Broken bool // the record cannot be read
}

// Open reads the reservations. The leases are those of an earlier run, for the caller to keep or Release.
func Open[T any](cfg Config) (*Pool[T], []Lease[T], error) {
	bits := cfg.Range.Bits()
	if !cfg.Range.Addr().Is4() || bits < 16 || bits > 30 {
		return nil, nil, fmt.Errorf("ipam: pod range %s: want an IPv4 prefix between /16 and /30", cfg.Range)
	}
	cfg.Range = cfg.Range.Masked()
	if cfg.Quarantine == 0 {
		cfg.Quarantine = 10 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("ipam: %w", err)
	}
	p := &Pool[T]{cfg: cfg, size: 1 << (32 - bits), used: map[int]bool{}, rest: map[int]time.Time{}, cursor: 1}
	if b, err := os.ReadFile(cfg.CursorFile); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n > 0 && n < p.size {
			p.cursor = n
		}
	}
	leases, err := p.read()
	return p, leases, err
}

func (p *Pool[T]) read() ([]Lease[T], error) {
	entries, err := os.ReadDir(p.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("ipam: %w", err)
	}
	var out []Lease[T]
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") { // a write that was cut short: its address was never used
			os.Remove(filepath.Join(p.cfg.Dir, e.Name()))
			continue
		}
		a, err := netip.ParseAddr(e.Name())
		slot, ok := p.slot(a)
		if err != nil || !ok { // of another range: its file means nothing here
			continue
		}
		l := Lease[T]{Slot: slot, Addr: a}
		b, err := os.ReadFile(filepath.Join(p.cfg.Dir, e.Name()))
		if err != nil || json.Unmarshal(b, &l.Record) != nil {
			l.Broken = true
		}
		p.used[slot] = true
		out = append(out, l)
	}
	return out, nil
}

// Gateway is the first address, which belongs to the node.
func (p *Pool[T]) Gateway() netip.Addr { return p.addr(1) }

// Reserve takes the next address for good and writes rec as its record. Errors: ErrExhausted, or of the file.
func (p *Pool[T]) Reserve(rec T) (Lease[T], error) {
	slot, err := p.take()
	if err != nil {
		return Lease[T]{}, err
	}
	l := Lease[T]{Slot: slot, Addr: p.addr(slot), Record: rec}
	if err := p.Write(l); err != nil {
		p.forget(slot)
		return Lease[T]{}, err
	}
	atReserved.Reach()
	// Losing the cursor costs only that addresses come again sooner.
	_ = os.WriteFile(p.cfg.CursorFile, []byte(strconv.Itoa(slot)), 0o600)
	return l, nil
}

func (p *Pool[T]) take() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, resting, longest := p.cfg.Now(), 0, 0
	for i := 1; i <= p.size; i++ {
		slot := (p.cursor + i) % p.size
		if slot < 2 || slot == p.size-1 || p.used[slot] {
			continue
		}
		at, ok := p.rest[slot]
		if !ok || now.Sub(at) >= p.cfg.Quarantine {
			return p.give(slot), nil
		}
		if resting++; longest == 0 || at.Before(p.rest[longest]) {
			longest = slot
		}
	}
	// Pods come and go faster than the range is long: better the one that rested longest than no pod.
	if longest != 0 && now.Sub(p.rest[longest]) >= leastRest {
		return p.give(longest), nil
	}
	return 0, fmt.Errorf("ipam: %w in %s: %d in use, %d released less than %s ago (give the node a larger range, or delete pods)",
		ErrExhausted, p.cfg.Range, len(p.used), resting, leastRest)
}

// give takes a slot; p.mu is held.
func (p *Pool[T]) give(slot int) int {
	delete(p.rest, slot)
	p.used[slot], p.cursor = true, slot
	return slot
}

func (p *Pool[T]) forget(slot int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.used, slot)
}

// Write replaces the record of a reserved address, whole or not at all.
func (p *Pool[T]) Write(l Lease[T]) error {
	b, err := json.Marshal(l.Record)
	if err != nil {
		return fmt.Errorf("ipam: record of %s: %w", l.Addr, err)
	}
	tmp := filepath.Join(p.cfg.Dir, "."+l.Addr.String())
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("ipam: record of %s: %w", l.Addr, err)
	}
	if err := os.Rename(tmp, filepath.Join(p.cfg.Dir, l.Addr.String())); err != nil {
		return fmt.Errorf("ipam: record of %s: %w", l.Addr, err)
	}
	return nil
}

// Release gives the address back: it rests for the quarantine. Idempotent.
func (p *Pool[T]) Release(a netip.Addr) error {
	slot, ok := p.slot(a)
	if !ok {
		return nil
	}
	if err := os.Remove(filepath.Join(p.cfg.Dir, a.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ipam: release %s: %w", a, err)
	}
	atReleased.Reach()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used[slot] {
		delete(p.used, slot)
		p.rest[slot] = p.cfg.Now()
	}
	return nil
}

func (p *Pool[T]) addr(slot int) netip.Addr {
	b := p.cfg.Range.Addr().As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	n += uint32(slot)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func (p *Pool[T]) slot(a netip.Addr) (int, bool) {
	if !p.cfg.Range.Contains(a) {
		return 0, false
	}
	base, b := p.cfg.Range.Addr().As4(), a.As4()
	n := 0
	for i := range b {
		n = n<<8 | int(b[i]-base[i])
	}
	return n, true
}
