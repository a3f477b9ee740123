package netfilter

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Config says how to reach the kernel.
type Config struct {
	// Prefix begins the name of every chain of ours: at most 7 capital letters or digits; default KEELSON. Two instances on one
	// machine need two prefixes.
	Prefix string
	// Save and Restore are the programs; default iptables-save and iptables-restore from PATH (nf_tables or legacy, as the host chose).
	Save, Restore string
	// Wait is how long to wait for the xtables lock of the legacy variant; default 5 s.
	Wait time.Duration
	// Repaired is told when Watch has put back what others removed; optional.
	Repaired func()
	Log      *slog.Logger // optional
}

// IPTables applies rulesets with iptables-save and iptables-restore. Safe for concurrent use.
type IPTables struct {
	cfg   Config
	names names
	turn  chan struct{} // one token; held over a transaction; guards everything below

	loaded  bool
	kernel  kernel
	have    map[key][]string   // chains as last written by us
	sets    map[Owner]Set      // what each owner wants, valid ones only
	written map[Owner]prepared // the same, rendered
	canary  *canary            // while Watch runs with legacy iptables

	pidMu sync.Mutex
	pids  []int // of our last programs, for Watch
}

// prepared is a rendered Set. A chain whose Rules slice is the very one of last time is not rendered again, so that
// an owner with ten thousand chains pays for those that changed.
type prepared struct {
	rules map[key][]Rule
	lines map[key][]string
	roots map[key][]string // root chain -> this owner's chains in it
}

// NewIPTables returns an applier; the kernel is not touched before the first Apply.
func NewIPTables(cfg Config) *IPTables {
	if cfg.Prefix == "" {
		cfg.Prefix = "KEELSON"
	}
	if cfg.Save == "" {
		cfg.Save = "iptables-save"
	}
	if cfg.Restore == "" {
		cfg.Restore = "iptables-restore"
	}
	if cfg.Wait == 0 {
		cfg.Wait = 5 * time.Second
	}
	if cfg.Repaired == nil {
		cfg.Repaired = func() {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &IPTables{
		cfg: cfg, names: names{cfg.Prefix}, turn: make(chan struct{}, 1),
		have: map[key][]string{}, sets: map[Owner]Set{}, written: map[Owner]prepared{},
	}
}

func (t *IPTables) acquire(ctx context.Context) error {
	select {
	case t.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("netfilter: waiting for another change: %w", context.Cause(ctx))
	}
}

func (t *IPTables) release() { <-t.turn }

// Apply makes s all that owner has in the packet filter, atomically per table. A nil error means the kernel holds it.
// After an error the kernel holds what it held before (a failing transaction changes nothing), or, for a Set over several
// tables, whole tables of it; calling again is the way on.
func (t *IPTables) Apply(ctx context.Context, owner Owner, s Set) error {
	if err := t.acquire(ctx); err != nil {
		return err
	}
	defer t.release()
	old := t.written[owner]
	next, err := t.prepare(owner, s, old)
	if err != nil {
		return err
	}
	if err := t.commit(ctx, owner, next); err != nil {
		return err
	}
	t.sets[owner], t.written[owner] = s, next
	return nil
}

func (t *IPTables) prepare(owner Owner, s Set, old prepared) (prepared, error) {
	if err := s.validate(t.names, owner); err != nil {
		return prepared{}, err
	}
	p := prepared{make(map[key][]Rule, len(s.Chains)), make(map[key][]string, len(s.Chains)), map[key][]string{}}
	for _, c := range s.Chains {
		at := key{c.Table, t.names.chain(owner, c.Name)}
		p.rules[at] = c.Rules
		if was, ok := old.rules[at]; ok && same(was, c.Rules) {
			p.lines[at] = old.lines[at]
			continue
		}
		lines := make([]string, len(c.Rules))
		for i, r := range c.Rules {
			lines[i] = t.names.render(owner, r)
		}
		p.lines[at] = lines
	}
	for _, h := range s.Hooks {
		root := key{h.Table, t.names.root(h.Base)}
		p.roots[root] = append(p.roots[root], t.names.chain(owner, h.Chain))
	}
	return p, nil
}

// same tells whether two slices are one: the same memory, not merely equal.
func same(a, b []Rule) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// commit brings the kernel to: next for owner, everything else as it is.
func (t *IPTables) commit(ctx context.Context, owner Owner, next prepared) error {
	if err := t.load(ctx); err != nil {
		return err
	}
	c := change{want: next.lines}
	for root, lines := range t.rootBodies(owner, next) {
		c.want[root] = lines
	}
	defer func() { // roots are of all owners: not part of what this one is remembered to want
		for at := range c.want {
			if t.names.owner(at.name) == "" {
				delete(c.want, at)
			}
		}
	}()
	for at := range t.kernel.chains {
		if _, keep := c.want[at]; !keep && t.names.owner(at.name) == owner {
			c.remove = append(c.remove, at)
		}
	}
	p := t.names.diff(t.kernel, t.have, c)
	if p.text == "" {
		return nil
	}
	if err := t.restore(ctx, p.text); err != nil {
		t.loaded = false
		return err
	}
	for at, lines := range p.applied {
		t.have[at], t.kernel.chains[at] = lines, true
	}
	for _, at := range p.removed {
		delete(t.have, at)
		delete(t.kernel.chains, at)
	}
	for _, at := range p.based {
		t.kernel.based[at], t.kernel.misplaced[at] = true, false
	}
	return nil
}

// rootBodies builds the root chains: this owner's hooks as they will be, the other owners' as they are, and those which an earlier
// process left for owners that have not spoken yet.
func (t *IPTables) rootBodies(owner Owner, next prepared) map[key][]string {
	calls := map[key][]string{}
	for root, chains := range t.kernel.roots {
		for _, ch := range chains {
			if o := t.names.owner(ch); o != owner && !t.spoken(o) && t.kernel.chains[key{root.table, ch}] {
				calls[root] = append(calls[root], ch)
			}
		}
		if calls[root] == nil {
			calls[root] = []string{}
		}
	}
	for _, o := range Owners() {
		p := t.written[o]
		if o == owner {
			p = next
		}
		for root, chains := range p.roots {
			calls[root] = append(calls[root], chains...)
		}
	}
	out := make(map[key][]string, len(calls))
	for root, chains := range calls {
		lines := []string{}
		for _, ch := range t.names.rootOrder(chains) {
			lines = append(lines, "-j "+ch)
		}
		out[root] = lines
	}
	for at := range t.have { // a root whose last hook went stays, empty
		if _, ok := out[at]; !ok && t.names.owner(at.name) == "" {
			out[at] = []string{}
		}
	}
	return out
}

func (t *IPTables) spoken(o Owner) bool { _, ok := t.written[o]; return ok }

// load learns from the kernel which chains of ours it holds, once, and again after a failure.
func (t *IPTables) load(ctx context.Context) error {
	if t.loaded {
		return nil
	}
	dump, err := t.run(ctx, nil, t.cfg.Save)
	if err != nil {
		return err
	}
	t.kernel = t.names.parse(dump)
	t.have = map[key][]string{}
	t.loaded = true
	return nil
}

// Resync reads the kernel and writes again whatever of ours is not there: for when somebody else flushed the rules.
func (t *IPTables) Resync(ctx context.Context) error {
	if err := t.acquire(ctx); err != nil {
		return err
	}
	defer t.release()
	t.loaded = false
	for _, o := range Owners() {
		if t.spoken(o) {
			if err := t.commit(ctx, o, t.written[o]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Clear removes every chain and jump with our prefix, whoever made it.
func (t *IPTables) Clear(ctx context.Context) error {
	if err := t.acquire(ctx); err != nil {
		return err
	}
	defer t.release()
	t.loaded = false
	if err := t.load(ctx); err != nil {
		return err
	}
	text := t.names.clear(t.kernel)
	t.loaded, t.sets, t.written = false, map[Owner]Set{}, map[Owner]prepared{}
	if text == "" {
		return nil
	}
	return t.restore(ctx, text)
}

func (t *IPTables) restore(ctx context.Context, text string) error {
	start := time.Now()
	if t.canary != nil {
		t.canary.look()
		defer func() { t.canary.accept() }()
	}
	_, err := t.run(ctx, []byte(text), t.cfg.Restore, "--noflush", fmt.Sprintf("--wait=%d", int(t.cfg.Wait.Seconds())))
	if err != nil {
		return fmt.Errorf("%w%s", err, faultyLine(err, text))
	}
	t.cfg.Log.Debug("packet filter changed", "bytes", len(text), "took", time.Since(start))
	return nil
}

func (t *IPTables) run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Start()
	if err == nil {
		t.started(cmd.Process.Pid)
		err = cmd.Wait()
	}
	if err != nil {
		return nil, fmt.Errorf("netfilter: %s: %w: %s", name, err, strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), nil
}

// faultyLine quotes the line that iptables-restore complained about ("line N failed"), if it named one.
func faultyLine(err error, text string) string {
	_, rest, ok := strings.Cut(err.Error(), "line")
	var n int
	if _, scan := fmt.Sscanf(strings.TrimLeft(rest, " :"), "%d", &n); !ok || scan != nil {
		return ""
	}
	lines := strings.Split(text, "\n")
	if n < 1 || n > len(lines) {
		return ""
	}
	return fmt.Sprintf(" (%s)", lines[n-1])
}
