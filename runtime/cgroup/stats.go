package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Stats is what a group used and uses. Times are in nanoseconds, sizes in
// bytes. A controller that is not mounted leaves its part at zero.
type Stats struct {
	At     time.Time
	CPU    CPUStats
	Memory MemoryStats
	Pids   PidsStats
	// PSI of cpu, memory and io, where the kernel has it (v2 only).
	PSI map[string]PSI
}

// CPUStats counts since the group's creation.
type CPUStats struct {
	UsageNs, UserNs, SystemNs           uint64
	Periods, ThrottledPeriods, Throttle uint64 // Throttle in nanoseconds
}

// MemoryStats is the present use. WorkingSet is Usage without the inactive
// page cache: what cannot be reclaimed at once, and what eviction goes by.
// Limit is 0 without one. SwapFree is what of a limit on swap is left, nil
// without one.
type MemoryStats struct {
	Usage, WorkingSet, RSS, Cache, Limit, Swap uint64
	SwapFree                                   *uint64
	PageFaults, MajorFaults                    uint64
	OOMKills                                   uint64
}

// PidsStats is the number of tasks now and the most allowed (0: no limit).
type PidsStats struct{ Current, Limit uint64 }

// PSI is how long tasks were stalled for a resource: some of them, and all.
type PSI struct{ Some, Full Pressure }

// Pressure is a share of time in percent over 10, 60 and 300 seconds, and the
// total in microseconds.
type Pressure struct {
	Avg10, Avg60, Avg300 float64
	Total                uint64
}

// Stats reads the group's use: with detail all of it, else what the kernel must
// be asked for once a container and second on a full node: CPU in total, memory
// and PSI. os.ErrNotExist says that the group is gone.
func (g Group) Stats(detail bool) (Stats, error) {
	if _, err := os.Stat(g.procsDir()); err != nil {
		return Stats{}, fmt.Errorf("stats of cgroup %s: %w", g.path, err)
	}
	s := Stats{At: time.Now()}
	var err error
	if g.hierarchy.Unified() {
		err = g.stats2(&s, detail)
	} else {
		g.stats1(&s, detail)
	}
	if err != nil {
		return Stats{}, fmt.Errorf("stats of cgroup %s: %w", g.path, err)
	}
	return s, nil
}

// OOMKills counts the processes of the group that the kernel killed for
// memory; 0 if the group or the controller is not there.
func (g Group) OOMKills() uint64 {
	name := "memory.oom_control"
	if g.hierarchy.Unified() {
		name = "memory.events"
	}
	var kills uint64
	readTable(g.dir("memory"), name, map[string]*uint64{"oom_kill": &kills})
	return kills
}

func (g Group) stats1(s *Stats, detail bool) {
	// Ticks of user and system time are 10 ms each on every Linux.
	const tick = uint64(10 * time.Millisecond)
	acct := g.dir("cpuacct")
	s.CPU.UsageNs = readNumber(acct, "cpuacct.usage")
	c, m := &s.CPU, &s.Memory
	dir, inactive, both := g.dir("memory"), uint64(0), uint64(0) // both: memory and swap
	readTable(dir, "memory.stat", map[string]*uint64{
		"hierarchical_memory_limit": &m.Limit, "total_rss": &m.RSS, "total_cache": &m.Cache, "total_swap": &m.Swap,
		"total_pgfault": &m.PageFaults, "total_pgmajfault": &m.MajorFaults, "total_inactive_file": &inactive,
		"hierarchical_memsw_limit": &both,
	})
	m.Usage, m.Limit = readNumber(dir, "memory.usage_in_bytes"), limitOf(m.Limit)
	if both = limitOf(both); both > 0 {
		m.limitSwap(both - min(m.Limit, both))
	}
	m.WorkingSet = workingSet(m.Usage, inactive)
	if !detail {
		return
	}
	readTable(acct, "cpuacct.stat", map[string]*uint64{"user": &c.UserNs, "system": &c.SystemNs})
	c.UserNs, c.SystemNs = c.UserNs*tick, c.SystemNs*tick
	readTable(g.dir("cpu"), "cpu.stat", map[string]*uint64{"nr_periods": &c.Periods, "nr_throttled": &c.ThrottledPeriods, "throttled_time": &c.Throttle})
	g.counts(s)
}

// counts are the numbers of kills and tasks.
func (g Group) counts(s *Stats) {
	dir := g.dir("pids")
	s.Memory.OOMKills = g.OOMKills()
	s.Pids.Current, s.Pids.Limit = readNumber(dir, "pids.current"), readNumber(dir, "pids.max")
}

func (g Group) stats2(s *Stats, detail bool) error {
	dir := g.dir("")
	c, m := &s.CPU, &s.Memory
	readTable(dir, "cpu.stat", map[string]*uint64{
		"usage_usec": &c.UsageNs, "user_usec": &c.UserNs, "system_usec": &c.SystemNs,
		"nr_periods": &c.Periods, "nr_throttled": &c.ThrottledPeriods, "throttled_usec": &c.Throttle,
	})
	for _, usec := range []*uint64{&c.UsageNs, &c.UserNs, &c.SystemNs, &c.Throttle} {
		*usec *= 1000
	}
	var inactive uint64
	readTable(dir, "memory.stat", map[string]*uint64{
		"anon": &m.RSS, "file": &m.Cache, "pgfault": &m.PageFaults, "pgmajfault": &m.MajorFaults, "inactive_file": &inactive,
	})
	m.Usage, m.Limit = readNumber(dir, "memory.current"), readNumber(dir, "memory.max")
	m.Swap = readNumber(dir, "memory.swap.current")
	read(dir, "memory.swap.max", func(text []byte) {
		if limit, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64); err == nil { // else it is "max"
			m.limitSwap(limit)
		}
	})
	m.WorkingSet = workingSet(m.Usage, inactive)
	if detail {
		g.counts(s)
	}
	for _, resource := range []string{"cpu", "memory", "io"} {
		var text string
		read(dir, resource+".pressure", func(b []byte) { text = string(b) })
		if text == "" {
			continue // PSI is off, or the kernel has none
		}
		psi, err := parsePSI(text)
		if err != nil {
			return fmt.Errorf("%s.pressure: %w", resource, err)
		}
		if s.PSI == nil {
			s.PSI = map[string]PSI{}
		}
		s.PSI[resource] = psi
	}
	return nil
}

func (m *MemoryStats) limitSwap(limit uint64) {
	free := limit - min(m.Swap, limit)
	m.SwapFree = &free
}

func workingSet(usage, inactive uint64) uint64 {
	if inactive > usage {
		return 0
	}
	return usage - inactive
}

// limitOf maps v1's "no limit", a number near 2^63, to 0.
func limitOf(n uint64) uint64 {
	if n >= 1<<62 {
		return 0
	}
	return n
}

// parsePSI reads a pressure file:
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=0
//	full avg10=0.00 avg60=0.00 avg300=0.00 total=0
func parsePSI(text string) (PSI, error) {
	var psi PSI
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		p, err := parsePressure(fields[1:])
		if err != nil {
			return PSI{}, err
		}
		switch fields[0] {
		case "some":
			psi.Some = p
		case "full":
			psi.Full = p
		}
	}
	return psi, nil
}

var errPressure = errors.New("not a pressure line")

func parsePressure(fields []string) (Pressure, error) {
	var p Pressure
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return Pressure{}, fmt.Errorf("%w: %q", errPressure, field)
		}
		var err error
		switch key {
		case "avg10":
			p.Avg10, err = strconv.ParseFloat(value, 64)
		case "avg60":
			p.Avg60, err = strconv.ParseFloat(value, 64)
		case "avg300":
			p.Avg300, err = strconv.ParseFloat(value, 64)
		case "total":
			p.Total, err = strconv.ParseUint(value, 10, 64)
		}
		if err != nil {
			return Pressure{}, fmt.Errorf("%w: %w", errPressure, err)
		}
	}
	return p, nil
}
