package netfilter

import (
	"context"
	"maps"
	"sync"
)

// Fake is a packet filter in memory: it holds what was applied and counts transactions. Safe for concurrent use.
type Fake struct {
	mu      sync.Mutex
	sets    map[Owner]Set
	changes int
	fail    error
}

// NewFake returns an empty filter.
func NewFake() *Fake { return &Fake{sets: map[Owner]Set{}} }

// Apply is IPTables.Apply without a kernel: the same refusals, and no transaction when nothing changed.
func (f *Fake) Apply(ctx context.Context, owner Owner, s Set) error {
	n := names{"KEELSON"}
	if err := s.validate(n, owner); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	if n.text(owner, s) != n.text(owner, f.sets[owner]) {
		f.changes++
	}
	f.sets[owner] = s
	return nil
}

// Clear forgets everything.
func (f *Fake) Clear(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sets = map[Owner]Set{}
	return nil
}

// Fail makes every Apply fail with err until it is called with nil.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// Changes counts the applied Sets that differed from the one before.
func (f *Fake) Changes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changes
}

// Tracer sends packets through what is applied now.
func (f *Fake) Tracer(h Host) Tracer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Tracer{Sets: maps.Clone(f.sets), Host: h}
}

// Text is a set as iptables-restore would read it on an empty kernel: for goldens and for people.
func Text(owner Owner, s Set) string { return names{"KEELSON"}.text(owner, s) }

func (n names) text(owner Owner, s Set) string {
	t := NewIPTables(Config{Prefix: n.prefix})
	t.kernel = emptyKernel()
	p, err := t.prepare(owner, s, prepared{})
	if err != nil {
		return err.Error()
	}
	c := change{want: p.lines}
	for root, lines := range t.rootBodies(owner, p) {
		c.want[root] = lines
	}
	return n.diff(t.kernel, nil, c).text
}
