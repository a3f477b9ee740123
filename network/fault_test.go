package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"keelson.dev/keelson/network/netfilter"
)

// faulty is a filter that first does what it is told when host ports change.
type faulty struct {
	*netfilter.IPTables
	fault atomic.Pointer[func(context.Context) error]
}

func (f *faulty) Apply(ctx context.Context, o netfilter.Owner, s netfilter.Set) error {
	if do := f.fault.Load(); do != nil && o == netfilter.HostPort {
		if err := (*do)(ctx); err != nil {
			return err
		}
	}
	return f.IPTables.Apply(ctx, o, s)
}

// TestHostile_CR13: a step of a pod's way onto the network or off it that hangs
// ends with its caller, one that fails is told, and either can be asked
// for again; other pods come meanwhile, and no address is lost or given twice.
func TestHostile_CR13(t *testing.T) {
	defer func(limit time.Duration) { backLimit = limit }(backLimit)
	f := &faulty{IPTables: netfilter.NewIPTables(netfilter.Config{})}
	n := node(t, func(c *Config) { c.Filter, c.PodCIDR = f, netip.MustParsePrefix("10.244.0.0/28") })
	errFault := errors.New("broken")
	giveUp := func() {}
	hang := func(ctx context.Context) error {
		giveUp()
		<-ctx.Done()
		return ctx.Err()
	}
	for name, fault := range map[string]struct {
		do    func(context.Context) error
		want  error
		stays bool // the way back fails too
	}{
		"hangs":      {hang, context.Canceled, true},
		"fails":      {func(context.Context) error { return errFault }, errFault, true},
		"fails once": {func(context.Context) error { f.fault.Store(nil); return errFault }, errFault, false},
	} {
		t.Run(name, func(t *testing.T) {
			if backLimit = time.Minute; name == "hangs" {
				backLimit = 50 * time.Millisecond
			}
			pod := Pod{SandboxID: "p", Namespace: "default", Name: "p", PortMappings: []PortMapping{{HostPort: 8081, ContainerPort: 80}}}
			setup := func(ctx context.Context) error { _, err := n.Setup(ctx, pod); return err }
			teardown := func(ctx context.Context) error { return n.Teardown(ctx, pod.SandboxID) }
			broken := func(call func(context.Context) error) {
				t.Helper()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				giveUp = cancel
				f.fault.Store(&fault.do)
				ended := make(chan error, 1)
				go func() { ended <- call(ctx) }()
				up(t, n, "other")
				if err := <-ended; !errors.Is(err, fault.want) {
					t.Errorf("got %v, want %v", err, fault.want)
				}
				f.fault.Store(nil)
			}
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal("without a fault: ", err)
				}
			}
			broken(setup)
			if err := setup(t.Context()); (err != nil) != fault.stays {
				t.Errorf("set up again: %v", err)
			}
			if fault.stays {
				broken(teardown)
			}
			must(teardown(t.Context()))
			must(setup(t.Context()))
			broken(teardown)
			must(teardown(t.Context()))
			must(n.Teardown(t.Context(), "other"))
		})
	}
	seen := map[netip.Addr]bool{}
	for i := range 13 { // the whole range: a released address rests for a moment
		waitFor(t, fmt.Sprintf("address %d of 13", i+1), func() bool {
			a, err := n.Setup(t.Context(), Pod{SandboxID: fmt.Sprint("all", i)})
			if err == nil {
				seen[a.IPs[0]] = true
			}
			return err == nil
		})
	}
	if len(seen) != 13 {
		t.Errorf("13 pods have the addresses %v", seen)
	}
}
