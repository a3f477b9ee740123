package conntrack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"keelson.dev/keelson/network/netfilter/netfiltertest"
)

func TestMain(m *testing.M) { netfiltertest.Main(m) }

// NW1: a table that fills is told of when it is nearly full and when it drops packets, with what to do, and not again and again.
func TestHostile_NW1(t *testing.T) {
	proc := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(proc, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadFill(proc); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a table: %v", err)
	}
	if n := testutil.CollectAndCount(Figures(proc)); n != 0 {
		t.Errorf("%d figures without a table", n)
	}
	at := func(entries, drop0, drop1 int) {
		write("sys/net/netfilter/nf_conntrack_count", fmt.Sprintln(entries))
		write("sys/net/netfilter/nf_conntrack_max", "1000\n")
		write("net/stat/nf_conntrack", fmt.Sprintf("entries  found insert_failed drop early_drop\n%08x 1 2 %08x 9\n%08x 1 2 %08x 9\n", entries, drop0, entries, drop1))
	}
	a := &Alarm{Proc: proc, Share: 0.9}
	a.last.Dropped = 5 // of the first look
	for i, row := range []struct {
		entries, drop0, drop1 int
		reason, message       string
	}{
		{100, 0, 5, "", ""},
		{899, 0, 5, "", ""},
		{900, 0, 5, "ConntrackTableNearlyFull", "900 of 1000 connections"},
		{950, 0, 5, "", ""},
		{1000, 16, 6, "ConntrackTableFull", "(1000 of 1000) and the kernel has dropped 17 packets: raise it (sysctl -w net.netfilter.nf_conntrack_max=2000)"},
		{1000, 17, 6, "ConntrackTableFull", "dropped 1 packets"},
		{1000, 17, 6, "", ""},
		{850, 17, 6, "", ""}, // not well yet
		{901, 17, 6, "", ""},
		{700, 17, 6, "", ""},
		{700, 19, 6, "", ""}, // for want of memory, or of a hash chain's end: not the table's limit
		{901, 19, 6, "ConntrackTableNearlyFull", "901 of 1000"},
	} {
		at(row.entries, row.drop0, row.drop1)
		f, err := ReadFill(proc)
		if err != nil {
			t.Fatal(err)
		}
		if reason, message := a.judge(f); reason != row.reason || !strings.Contains(message, row.message) {
			t.Errorf("look %d: %s, %q; want %s, %q", i, reason, message, row.reason, row.message)
		}
	}
	const want = `# HELP node_nf_conntrack_entries Connections that the kernel tracks.
# TYPE node_nf_conntrack_entries gauge
node_nf_conntrack_entries 901
# HELP node_nf_conntrack_entries_limit Connections that the kernel can track.
# TYPE node_nf_conntrack_entries_limit gauge
node_nf_conntrack_entries_limit 1000
# HELP node_nf_conntrack_stat_drop Packets dropped because the table was full.
# TYPE node_nf_conntrack_stat_drop counter
node_nf_conntrack_stat_drop 25
`
	if err := testutil.CollectAndCompare(Figures(proc), strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

// NW1, with the kernel's own table, of a network namespace of the test. Its limit is the whole machine's, so the share is what is small.
func TestHostile_NW1_kernel(t *testing.T) {
	netfiltertest.Need(t, "iptables")
	// A rule that asks for a connection's state has the kernel track them.
	netfiltertest.Run(t, "iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT")
	empty, err := ReadFill("/proc")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the kernel does not show its table of connections: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	const flows = 200
	ctx, cancel := context.WithCancel(t.Context())
	asked, told, done := 0, make(chan string, 10), make(chan error, 1)
	a := &Alarm{Proc: "/proc", Share: (float64(empty.Entries) + flows/2) / float64(empty.Limit), Every: 10 * time.Millisecond, Tell: func(reason, message string) { told <- reason + " " + message },
		Reserve: func(_ context.Context, on bool) error {
			told <- fmt.Sprint("reserve ", on)
			if asked++; asked == 1 {
				return errors.New("asked again")
			}
			return nil
		}}
	go func() { done <- a.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for range 2 { // again, after an error
		if got := <-told; got != "reserve false" {
			t.Errorf("told %q, want that there is no need for the reserve", got)
		}
	}
	for port := range flows {
		c, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", 20000+port))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("x")) // nobody answers; the kernel remembers all the same
		c.Close()
	}
	for _, want := range []string{"ConntrackTableNearlyFull ", "reserve true"} {
		select {
		case got := <-told:
			if !strings.HasPrefix(got, want) {
				t.Errorf("told %q, want %s", got, want)
			}
		case <-time.After(30 * time.Second):
			f, err := ReadFill("/proc")
			t.Fatalf("%s was not told; the table has %+v, %v; it had %+v", want, f, err, empty)
		}
	}
}
