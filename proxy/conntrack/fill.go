package conntrack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Fill is how full the kernel's table is. Packets that would begin a connection when it is full are dropped: of pods and of the
// node itself.
type Fill struct{ Entries, Limit, Dropped uint64 }

// ReadFill reads it of the network namespace that proc (a mounted procfs) shows; fs.ErrNotExist where nothing tracks connections.
func ReadFill(proc string) (Fill, error) {
	var f Fill
	for name, to := range map[string]*uint64{"nf_conntrack_count": &f.Entries, "nf_conntrack_max": &f.Limit} {
		b, err := os.ReadFile(proc + "/sys/net/netfilter/" + name)
		if err != nil {
			return f, fmt.Errorf("conntrack: %w", err)
		}
		if *to, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err != nil {
			return f, fmt.Errorf("conntrack: %s: %w", name, err)
		}
	}
	b, err := os.ReadFile(proc + "/net/stat/nf_conntrack")
	if err != nil {
		return f, fmt.Errorf("conntrack: %w", err)
	}
	f.Dropped, err = dropped(string(b))
	return f, err
}

// dropped adds up the column of that name, hexadecimal and a line for each CPU.
func dropped(table string) (sum uint64, err error) {
	column := -1
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if column < 0 {
			for i, name := range fields {
				if name == "drop" {
					column = i
				}
			}
			if column < 0 {
				return 0, errors.New("conntrack: the kernel's figures have no column drop")
			}
			continue
		}
		if column >= len(fields) {
			return 0, fmt.Errorf("conntrack: a line of the kernel's figures is short: %q", line)
		}
		n, err := strconv.ParseUint(fields[column], 16, 64)
		if err != nil {
			return 0, fmt.Errorf("conntrack: %w", err)
		}
		sum += n
	}
	return sum, nil
}

// Alarm tells once when the table has become nearly full, and each time that the kernel has dropped packets since the last look. The kernel
// has no event for either.
type Alarm struct {
	Proc  string                       // a mounted procfs; /proc
	Share float64                      // of the limit from which on it is nearly full; 0.9. It is well again below four fifths of that.
	Every time.Duration                // between looks; a tenth of it while more than half of the table is used
	Tell  func(reason, message string) // an Event of the Node
	// Reserve keeps what the node lives by reachable although the table is nearly full, or ends that. It is called at the first look and when that
	// changes, and at the next look again after an error. Optional.
	Reserve func(ctx context.Context, on bool) error

	near bool
	last Fill
}

// Run looks until ctx ends.
func (a *Alarm) Run(ctx context.Context) error {
	first, reserved := true, false
	for settled := false; ; {
		f, err := ReadFill(a.Proc)
		pause := a.Every
		switch {
		case errors.Is(err, fs.ErrNotExist): // the module may come later
		case err != nil:
			return err
		case first: // what was dropped before is not news
			a.last, first = f, false
			fallthrough
		default:
			if reason, message := a.judge(f); reason != "" {
				a.Tell(reason, message)
			}
			if a.Reserve != nil && !(settled && reserved == a.near) {
				reserved, settled = a.near, a.Reserve(ctx, a.near) == nil
			}
			if f.Entries > f.Limit/2 {
				pause = a.Every / 10
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// judge compares a look with the one before.
func (a *Alarm) judge(f Fill) (reason, message string) {
	lost := f.Dropped - min(a.last.Dropped, f.Dropped)
	a.last = f
	share := float64(f.Entries) / float64(max(f.Limit, 1))
	was := a.near
	if share >= a.Share {
		a.near = true
	} else if share < a.Share*4/5 {
		a.near = false
	}
	const mend = "raise it (sysctl -w net.netfilter.nf_conntrack_max=%d), or find who opens so many connections (conntrack -L)"
	switch {
	case lost > 0 && a.near:
		return "ConntrackTableFull", fmt.Sprintf("The table of connections is full (%d of %d) and the kernel has dropped %d packets: "+mend, f.Entries, f.Limit, lost, 2*f.Limit)
	case a.near && !was:
		return "ConntrackTableNearlyFull", fmt.Sprintf("%d of %d connections that this node can track are there; new ones will be dropped, but for the API, the kubelet and probes: "+mend, f.Entries, f.Limit, 2*f.Limit)
	}
	return "", ""
}

// Figures are a collector of Fill, under the names that node dashboards know.
func Figures(proc string) prometheus.Collector { return figures(proc) }

type figures string

var (
	entriesFigure = prometheus.NewDesc("node_nf_conntrack_entries", "Connections that the kernel tracks.", nil, nil)
	limitFigure   = prometheus.NewDesc("node_nf_conntrack_entries_limit", "Connections that the kernel can track.", nil, nil)
	droppedFigure = prometheus.NewDesc("node_nf_conntrack_stat_drop", "Packets dropped because the table was full.", nil, nil)
)

// Describe implements prometheus.Collector.
func (figures) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{entriesFigure, limitFigure, droppedFigure} {
		to <- d
	}
}

// Collect implements prometheus.Collector; nothing where nothing tracks connections.
func (p figures) Collect(to chan<- prometheus.Metric) {
	f, err := ReadFill(string(p))
	if err != nil {
		return
	}
	to <- prometheus.MustNewConstMetric(entriesFigure, prometheus.GaugeValue, float64(f.Entries))
	to <- prometheus.MustNewConstMetric(limitFigure, prometheus.GaugeValue, float64(f.Limit))
	to <- prometheus.MustNewConstMetric(droppedFigure, prometheus.CounterValue, float64(f.Dropped))
}
