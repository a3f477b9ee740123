package bundle

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Limits is what this process may give to its children.
type Limits struct {
	Unlimited      bool              // CAP_SYS_RESOURCE: anything goes
	Permitted      uint64            // its capabilities, as bits
	OOMScoreAdjMin int               // lowest oom_score_adj it may set
	HardMax        map[string]uint64 // rlimit type -> its own hard limit
}

// rlimits are the names that an OCI spec uses.
var rlimits = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

// OwnLimits reads the limits of this process.
func OwnLimits() (Limits, error) {
	l := Limits{HardMax: map[string]uint64{}}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return l, fmt.Errorf("own limits: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
			if err != nil {
				return l, fmt.Errorf("own limits: capabilities: %w", err)
			}
			l.Permitted = caps
			l.Unlimited = caps&(1<<unix.CAP_SYS_RESOURCE) != 0
		}
	}
	text, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return l, fmt.Errorf("own limits: %w", err)
	}
	if l.OOMScoreAdjMin, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return l, fmt.Errorf("own limits: oom_score_adj: %w", err)
	}
	for name, which := range rlimits {
		var r unix.Rlimit
		if err := unix.Getrlimit(which, &r); err == nil {
			l.HardMax[name] = r.Max
		}
	}
	return l, nil
}

// Clamp brings the process's oom_score_adj and rlimits into what may be set,
// so that a spec written for a more powerful parent still starts. It says what
// it changed.
func Clamp(p *specs.Process, own Limits) (changed []string) {
	if p == nil {
		return nil
	}
	if p.OOMScoreAdj != nil {
		lowest := -1000
		if !own.Unlimited {
			lowest = own.OOMScoreAdjMin
		}
		if want := min(max(*p.OOMScoreAdj, lowest), 1000); want != *p.OOMScoreAdj {
			changed = append(changed, fmt.Sprintf("oom_score_adj %d -> %d", *p.OOMScoreAdj, want))
			p.OOMScoreAdj = &want
		}
	}
	for i := range p.Rlimits {
		r := &p.Rlimits[i]
		r.Soft = min(r.Soft, r.Hard)
		most, known := own.HardMax[r.Type]
		if own.Unlimited || !known || r.Hard <= most {
			continue
		}
		changed = append(changed, fmt.Sprintf("%s %d -> %d", r.Type, r.Hard, most))
		r.Hard, r.Soft = most, min(r.Soft, most)
	}
	return changed
}

// RlimitNumber is the kernel's number of an OCI rlimit name.
func RlimitNumber(name string) (int, bool) {
	n, ok := rlimits[name]
	return n, ok
}
