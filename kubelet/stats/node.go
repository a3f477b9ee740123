package stats

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"
)

// userHZ is the unit of /proc/stat, fixed by the kernel's ABI.
const userHZ = 100

// node reads what the whole machine uses.
func (s *Source) node() usage {
	u := usage{at: time.Now()}
	if b, err := os.ReadFile("/proc/stat"); err == nil {
		first, _, _ := bytes.Cut(b, []byte("\n"))
		var busy uint64
		for i, f := range strings.Fields(string(first)) {
			n, err := strconv.ParseUint(f, 10, 64)
			if err == nil && i != 4 && i != 5 && i < 9 { // all but idle and iowait; guest time is in user time
				busy += n
			}
		}
		u.cpuNano = busy * uint64(time.Second/userHZ)
	}
	u.cpuRate = s.rate("", u.at, u.cpuNano)
	mem := map[string]uint64{}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range bytes.Lines(b) {
			f := strings.Fields(string(line))
			if len(f) >= 2 {
				n, _ := strconv.ParseUint(f[1], 10, 64)
				mem[strings.TrimSuffix(f[0], ":")] = n << 10
			}
		}
	}
	u.memory = mem["MemTotal"] - mem["MemFree"]
	u.working = u.memory - min(mem["Inactive(file)"], u.memory)
	u.rss = mem["AnonPages"]
	return u
}

// memoryAvailable is what can still be given out, in bytes, as eviction sees it.
func memoryAvailable(total uint64, n usage) uint64 { return total - min(n.working, total) }
