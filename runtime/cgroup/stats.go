package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
// Limit is 0 without one.
type MemoryStats struct {
	Usage, WorkingSet, RSS, Cache, Limit, Swap uint64
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

// Stats reads the group's use. os.ErrNotExist says that the group is gone.
func (g Group) Stats() (Stats, error) {
	if _, err := os.Stat(g.procsDir()); err != nil {
		return Stats{}, fmt.Errorf("stats of cgroup %s: %w", g.path, err)
	}
	s := Stats{At: time.Now()}
	var err error
	if g.hierarchy.Unified() {
		err = g.stats2(&s)
	} else {
		err = g.stats1(&s)
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
	return readTable(g.dir("memory"), name)["oom_kill"]
}

func (g Group) stats1(s *Stats) error {
	// Ticks of user and system time are 10 ms each on every Linux.
	const tick = uint64(10 * time.Millisecond)
	acct := g.dir("cpuacct")
	s.CPU.UsageNs = readNumber(acct, "cpuacct.usage")
	split := readTable(acct, "cpuacct.stat")
	s.CPU.UserNs, s.CPU.SystemNs = split["user"]*tick, split["system"]*tick
	cpu := readTable(g.dir("cpu"), "cpu.stat")
	s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.Throttle = cpu["nr_periods"], cpu["nr_throttled"], cpu["throttled_time"]

	dir := g.dir("memory")
	mem := readTable(dir, "memory.stat")
	s.Memory.Usage = readNumber(dir, "memory.usage_in_bytes")
	s.Memory.Limit = limitOf(mem["hierarchical_memory_limit"])
	s.Memory.RSS, s.Memory.Cache, s.Memory.Swap = mem["total_rss"], mem["total_cache"], mem["total_swap"]
	s.Memory.PageFaults, s.Memory.MajorFaults = mem["total_pgfault"], mem["total_pgmajfault"]
	s.Memory.WorkingSet = workingSet(s.Memory.Usage, mem["total_inactive_file"])
	s.Memory.OOMKills = g.OOMKills()

	s.Pids.Current = readNumber(g.dir("pids"), "pids.current")
	s.Pids.Limit = readNumber(g.dir("pids"), "pids.max")
	return nil
}

func (g Group) stats2(s *Stats) error {
	dir := g.dir("")
	cpu := readTable(dir, "cpu.stat")
	s.CPU.UsageNs, s.CPU.UserNs, s.CPU.SystemNs = cpu["usage_usec"]*1000, cpu["user_usec"]*1000, cpu["system_usec"]*1000
	s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.Throttle = cpu["nr_periods"], cpu["nr_throttled"], cpu["throttled_usec"]*1000

	mem := readTable(dir, "memory.stat")
	s.Memory.Usage = readNumber(dir, "memory.current")
	s.Memory.Limit = readNumber(dir, "memory.max")
	s.Memory.RSS, s.Memory.Cache = mem["anon"], mem["file"]
	s.Memory.Swap = readNumber(dir, "memory.swap.current")
	s.Memory.PageFaults, s.Memory.MajorFaults = mem["pgfault"], mem["pgmajfault"]
	s.Memory.WorkingSet = workingSet(s.Memory.Usage, mem["inactive_file"])
	s.Memory.OOMKills = g.OOMKills()

	s.Pids.Current = readNumber(dir, "pids.current")
	s.Pids.Limit = readNumber(dir, "pids.max")
	for _, resource := range []string{"cpu", "memory", "io"} {
		text, err := os.ReadFile(filepath.Join(dir, resource+".pressure"))
		if err != nil {
			continue // PSI is off, or the kernel has none
		}
		psi, err := parsePSI(string(text))
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

// readNumber reads a file of one number; "max", an absent file and anything
// else count as 0.
func readNumber(dir, name string) uint64 {
	if dir == "" {
		return 0
	}
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return limitOf(n)
}

// readTable reads a file of "key number" lines; absent, it is empty.
func readTable(dir, name string) map[string]uint64 {
	if dir == "" {
		return nil
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil
	}
	defer f.Close()
	out := map[string]uint64{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64); err == nil {
			out[key] = n
		}
	}
	return out
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
