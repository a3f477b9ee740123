package netfilter

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"keelson.dev/keelson/network/netfilter/netfiltertest"
)

func TestMain(m *testing.M) { netfiltertest.Main(m) }

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// everyKind is a set with each match and verb that can be written.
func everyKind() Set {
	m := []Match{
		{In: "k-+", NotIn: true, Src: pfx("10.0.0.0/8"), NotSrc: true, Dst: pfx("10.1.0.0/16"), NotDst: true},
		{Out: "eth0", Proto: "tcp", DstPorts: Ports{80, 90}, SrcPorts: Port(7), SYN: Yes},
		{Proto: "udp", DstPorts: Port(53), State: New | Established | Related | Invalid | Untracked},
		{Proto: "sctp", DstPorts: Port(9), NotState: DNATed}, {Proto: "icmp"},
		{SrcLocal: Yes}, {SrcLocal: No}, {DstLocal: Yes}, {DstLocal: No},
		{Mark: Mark{1, 3}}, {Probability: 1.0 / 3},
		{Recent: Recent{List: "x", Seconds: 10}}, {Recent: Recent{List: "x", Set: true}}, {DstBits: Bits{5, 63}},
		{Proto: "tcp", SYN: No},
	}
	var any, nat []Rule
	for _, x := range m {
		any = append(any, Rule{Match: x, Target: To(Accept), Comment: `it's "quoted" \ and $(odd)` + "\n"})
	}
	for _, v := range []Verb{Accept, Drop, Return, Continue, Reject} {
		any = append(any, Rule{Target: To(v)})
	}
	any = append(any, Rule{Match: Match{Proto: "tcp"}, Target: Target{Verb: Reject, Reset: true}}, Rule{Target: JumpTo("B")},
		Rule{Target: Target{Verb: Goto, Chain: "B"}}, Rule{Target: Target{Verb: SetMark, Mark: Mark{0x4000, 0x4000}}})
	nat = append(nat, Rule{Match: Match{Proto: "tcp"}, Target: Target{Verb: DNAT, To: netip.MustParseAddrPort("10.0.0.1:80")}},
		Rule{Target: Target{Verb: DNAT, To: netip.MustParseAddrPort("10.0.0.1:0")}})
	return Set{
		Chains: []Chain{{Filter, "A", any}, {Filter, "B", nil}, {NAT, "A", nat}, {NAT, "P", []Rule{{Target: To(Masquerade)}}},
			{Raw, "R", []Rule{{Target: To(SocketMark)}, {Target: To(NoTrack)}}},
			{Mangle, "M", []Rule{{Match: Match{Proto: "tcp", SYN: Yes}, Target: To(ClampMSS)}}}},
		Hooks: []Hook{{Filter, "FORWARD", "A"}, {NAT, "PREROUTING", "A"}, {NAT, "POSTROUTING", "P"}, {Raw, "PREROUTING", "R"}, {Mangle, "FORWARD", "M"}},
	}
}

// variants runs a test with each iptables that the machine has.
func variants(t *testing.T, f func(t *testing.T, save string, cfg Config)) {
	for _, v := range []string{"nft", "legacy"} {
		t.Run(v, func(t *testing.T) {
			save, restore := "iptables-"+v+"-save", "iptables-"+v+"-restore"
			netfiltertest.Need(t, save, restore)
			cfg := Config{Save: save, Restore: restore}
			t.Cleanup(func() {
				if err := NewIPTables(cfg).Clear(context.Background()); err != nil {
					t.Error(err)
				}
				if out := netfiltertest.Run(t, save); strings.Contains(out, "KEELSON") {
					t.Errorf("left: %s", out)
				}
			})
			f(t, save, cfg)
		})
	}
}

// execs counts the transactions that reached the kernel.
func execs(t *IPTables) int { t.pidMu.Lock(); defer t.pidMu.Unlock(); return len(t.pids) }

func TestKernelTakesEveryKind(t *testing.T) {
	variants(t, func(t *testing.T, save string, cfg Config) {
		ipt := NewIPTables(cfg)
		if err := ipt.Apply(t.Context(), Service, everyKind()); err != nil {
			t.Fatal(err)
		}
		n := execs(ipt)
		if err := ipt.Apply(t.Context(), Service, everyKind()); err != nil || execs(ipt) != n {
			t.Errorf("the same set again: %v, %d programs run", err, execs(ipt)-n)
		}
		if whole, err := ipt.whole(t.Context()); err != nil || !whole {
			t.Errorf("what was written is not found: %v %v", whole, err)
		}
		if err := ipt.Apply(t.Context(), Service, Set{}); err != nil {
			t.Fatal(err)
		}
		if out := netfiltertest.Run(t, save); strings.Contains(out, "KEELSON-SVC") {
			t.Errorf("after an empty set: %s", out)
		}
	})
}

func TestHostsOwnRulesStay(t *testing.T) {
	variants(t, func(t *testing.T, save string, cfg Config) {
		ipt := strings.TrimSuffix(save, "-save")
		for _, r := range []string{"-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-A FORWARD -j DOCKER-USER", "-A FORWARD -s 1.2.3.4/32 -j DROP"} {
			netfiltertest.Run(t, ipt, strings.Fields(r)...)
		}
		before := netfiltertest.Run(t, ipt, "-S")
		a := NewIPTables(cfg)
		for _, o := range Owners() {
			if err := a.Apply(t.Context(), o, Set{Chains: []Chain{{Filter, "F", []Rule{{Target: To(Return)}}}}, Hooks: []Hook{{Filter, "FORWARD", "F"}}}); err != nil {
				t.Fatal(err)
			}
		}
		root := netfiltertest.Run(t, ipt, "-S", "KEELSON-FORWARD")
		var order []string
		for line := range strings.Lines(root) {
			if f := strings.Fields(line); f[0] == "-A" {
				order = append(order, f[3])
			}
		}
		if got := strings.Join(order, " "); got != "KEELSON-POL-F KEELSON-SVC-F KEELSON-HP-F KEELSON-NET-F KEELSON-RSV-F" {
			t.Errorf("order of owners: %s", got)
		}
		if err := a.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := netfiltertest.Run(t, ipt, "-S"); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		netfiltertest.Run(t, ipt, "-F")
		netfiltertest.Run(t, ipt, "-X")
	})
}

// A new process must not take away what the one before it left, before each owner has spoken.
func TestRestartKeepsRulesUntilTheirOwnerSpeaks(t *testing.T) {
	variants(t, func(t *testing.T, save string, cfg Config) {
		set := func(chain string) Set {
			return Set{Chains: []Chain{{Filter, chain, []Rule{{Target: To(Return)}}}}, Hooks: []Hook{{Filter, "FORWARD", chain}}}
		}
		old := NewIPTables(cfg)
		for _, o := range []Owner{Policy, Service} {
			if err := old.Apply(t.Context(), o, set("OLD")); err != nil {
				t.Fatal(err)
			}
		}
		next := NewIPTables(cfg)
		has := func(want ...string) {
			t.Helper()
			out := netfiltertest.Run(t, save, "-t", "filter")
			for _, w := range want {
				if !strings.Contains(out, "-A KEELSON-FORWARD -j KEELSON-"+w+"\n") {
					t.Errorf("%s is not called:\n%s", w, out)
				}
			}
			if n := strings.Count(out, "-A KEELSON-FORWARD"); n != len(want) {
				t.Errorf("%d calls, want %v:\n%s", n, want, out)
			}
			if strings.Count(out, "-A FORWARD -j KEELSON-FORWARD") != 1 {
				t.Errorf("hooked more than once:\n%s", out)
			}
		}
		if err := next.Apply(t.Context(), Service, set("NEW")); err != nil {
			t.Fatal(err)
		}
		has("POL-OLD", "SVC-NEW")
		if err := next.Apply(t.Context(), Policy, set("NEW")); err != nil {
			t.Fatal(err)
		}
		has("POL-NEW", "SVC-NEW")
		if out := netfiltertest.Run(t, save); strings.Contains(out, "OLD") {
			t.Errorf("an old chain is left: %s", out)
		}
	})
}

func TestFailedTransactionChangesNothing(t *testing.T) {
	variants(t, func(t *testing.T, save string, cfg Config) {
		ipt := NewIPTables(cfg)
		good := Set{Chains: []Chain{{Filter, "A", []Rule{{Target: To(Drop)}}}}}
		if err := ipt.Apply(t.Context(), Service, good); err != nil {
			t.Fatal(err)
		}
		bad := Set{Chains: []Chain{{Filter, "A", []Rule{{Target: To(Accept)}, {Target: To("NOSUCH")}}}}}
		if err := ipt.Apply(t.Context(), Service, bad); err == nil || !strings.Contains(err.Error(), "NOSUCH") {
			t.Errorf("got %v, want an error that quotes the line", err)
		}
		if out := netfiltertest.Run(t, save); !strings.Contains(out, "-A KEELSON-SVC-A -j DROP") || strings.Contains(out, "-A KEELSON-SVC-A -j ACCEPT") {
			t.Errorf("after a failure: %s", out)
		}
		if err := ipt.Apply(t.Context(), Service, good); err != nil {
			t.Error("after the failure:", err)
		}
	})
}

func TestRefusesWhatCannotWork(t *testing.T) {
	for name, s := range map[string]Set{
		"long name":      {Chains: []Chain{{Filter, "ABCDEFGHIJKLMNOPQ", nil}}},
		"odd name":       {Chains: []Chain{{Filter, "A\n-j DROP", nil}}},
		"empty name":     {Chains: []Chain{{Filter, "", nil}}},
		"twice":          {Chains: []Chain{{Filter, "A", nil}, {Filter, "A", nil}}},
		"jump nowhere":   {Chains: []Chain{{Filter, "A", []Rule{{Target: JumpTo("B")}}}}},
		"jump elsewhere": {Chains: []Chain{{Filter, "A", []Rule{{Target: JumpTo("B")}}}, {NAT, "B", nil}}},
		"hook nowhere":   {Hooks: []Hook{{Filter, "FORWARD", "A"}}},
	} {
		if err := NewFake().Apply(t.Context(), Service, s); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ipt := NewIPTables(Config{Save: "/nonexistent"})
	ipt.turn <- struct{}{} // somebody else is at it
	if err := ipt.Apply(ctx, Service, Set{}); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting with an ended context: %v", err)
	}
}

func TestCommentsCannotEscape(t *testing.T) {
	r := Rule{Comment: "a\"\n-A INPUT -j ACCEPT\n\x00é" + strings.Repeat("x", 300), Target: To(Drop)}
	got := names{"KEELSON"}.render(Service, r)
	if strings.ContainsAny(got, "\n\x00\\") || strings.Count(got, `"`) != 2 || len(got) > 260 {
		t.Errorf("rendered: %q", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("*filter\n:KEELSON-FORWARD - [0:0]\n-A FORWARD -j KEELSON-FORWARD\n-A KEELSON-FORWARD -j KEELSON-SVC-A\nCOMMIT\n"))
	f.Fuzz(func(t *testing.T, dump []byte) {
		n := names{"KEELSON"}
		k := n.parse(dump)
		n.clear(k)
		n.diff(k, nil, change{want: map[key][]string{{Filter, "KEELSON-FORWARD"}: {}}})
	})
}

// watched applies rules of every kind and keeps them until the test ends.
func watched(t *testing.T, ipt *IPTables) {
	t.Helper()
	t.Cleanup(func() { ipt.Clear(context.Background()) })
	if err := ipt.Apply(t.Context(), Service, everyKind()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ipt.Watch(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestHostile_NW7(t *testing.T) {
	netfiltertest.Need(t, "iptables-nft", "nft")
	cfg := Config{Save: "iptables-nft-save", Restore: "iptables-nft-restore"}
	ipt := NewIPTables(cfg)
	watched(t, ipt)
	whole := func() bool {
		if ipt.acquire(t.Context()) != nil {
			return false
		}
		defer ipt.release()
		ok, err := ipt.whole(t.Context())
		return ok && err == nil
	}
	// Until the watch listens, a flush may go unseen; so the first is repeated.
	for _, flush := range []string{"nft delete table ip filter", "iptables-nft -t nat -F", "nft flush ruleset", "iptables-nft -D FORWARD 1",
		"iptables-nft -F KEELSON-SVC-A"} {
		start, again := time.Now(), time.Now()
		netfiltertest.Run(t, "sh", "-c", flush)
		for !whole() {
			if time.Since(start) > 30*time.Second {
				t.Fatalf("after %q the rules did not come back", flush)
			}
			if time.Since(again) > time.Second && flush == "nft delete table ip filter" {
				again = time.Now()
				netfiltertest.Run(t, "sh", "-c", "nft add table ip other; nft delete table ip other")
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Logf("%q repaired after %v", flush, time.Since(start))
	}
	n := execs(ipt)
	if err := ipt.Apply(t.Context(), Service, Set{}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * settle) // nothing is to happen: our own change is no reason to look
	if got := execs(ipt) - n; got > 1 {
		t.Errorf("our own change made %d programs run, want 1", got)
	}
}

// ND22: legacy iptables tells of nothing, and what a script removes comes back all the same; what we do ourselves is no reason to look.
func TestHostile_ND22(t *testing.T) {
	netfiltertest.Need(t, "iptables-legacy")
	every := legacyEvery
	t.Cleanup(func() { legacyEvery = every }) // once nothing watches any more
	legacyEvery = 10 * time.Millisecond
	repaired := make(chan struct{}, 100)
	ipt := NewIPTables(Config{Save: "iptables-legacy-save", Restore: "iptables-legacy-restore", Repaired: func() { repaired <- struct{}{} }})
	watched(t, ipt)
	for _, script := range []string{"iptables-legacy -t nat -F", "iptables-legacy -D FORWARD 1", "iptables-legacy -t raw -F KEELSON-SVC-R",
		"iptables-legacy -F; iptables-legacy -X", "iptables-legacy -A INPUT -s 192.0.2.9 -j DROP; iptables-legacy -F KEELSON-SVC-A"} {
		netfiltertest.Run(t, "sh", "-c", script)
		select {
		case <-repaired:
		case <-time.After(30 * time.Second):
			t.Fatalf("after %q the rules did not come back", script)
		}
	}
	for range 5 {
		if err := ipt.Apply(t.Context(), Service, Set{}); err != nil {
			t.Fatal(err)
		}
		if err := ipt.Apply(t.Context(), Service, everyKind()); err != nil {
			t.Fatal(err)
		}
	}
	netfiltertest.Run(t, "iptables-legacy", "-D", "INPUT", "-s", "192.0.2.9", "-j", "DROP") // none of ours
	netfiltertest.Run(t, "iptables-legacy", "-F", "KEELSON-SVC-A")
	<-repaired
	if len(repaired) != 0 {
		t.Error("our own changes were repaired")
	}
}

func ExampleText() {
	fmt.Print(Text(Service, Set{Chains: []Chain{{NAT, "A", []Rule{{Match: Match{Proto: "tcp", DstPorts: Port(80)},
		Target: Target{Verb: DNAT, To: netip.MustParseAddrPort("10.244.0.5:8080")}}}}}, Hooks: []Hook{{NAT, "PREROUTING", "A"}}}))
	// Output:
	// *nat
	// :KEELSON-PREROUTING - [0:0]
	// :KEELSON-SVC-A - [0:0]
	// -A KEELSON-PREROUTING -j KEELSON-SVC-A
	// -A KEELSON-SVC-A -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.0.5:8080
	// -I PREROUTING 1 -j KEELSON-PREROUTING
	// COMMIT
}
