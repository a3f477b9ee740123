package metric

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ReadExtra reads the cgroup at path (below root, usually /sys/fs/cgroup) and the
// processes in it. What is missing stays zero: a container may end while it is
// read.
func ReadExtra(root, path string, unified bool) Extra {
	dir := func(controller string) string {
		if unified {
			return filepath.Join(root, path)
		}
		return filepath.Join(root, controller, path)
	}
	var e Extra
	readMemory(&e, dir("memory"), unified)
	e.Hugetlb = readHugetlb(dir("hugetlb"), unified)
	if unified {
		e.Devices = parseIOStat(readText(dir("io"), "io.stat"))
	} else {
		e.Devices = parseBlkio(readText(dir("blkio"), "blkio.throttle.io_service_bytes"), readText(dir("blkio"), "blkio.throttle.io_serviced"))
	}
	e.Threads = readNumber(dir("pids"), "pids.current")
	readProcesses(&e, dir("pids"))
	return e
}

func readMemory(e *Extra, dir string, unified bool) {
	stat := readText(dir, "memory.stat")
	if unified {
		e.MemoryPeak = readNumber(dir, "memory.peak")
		e.MemoryFails = keyed(readText(dir, "memory.events"), "max")
		e.MemoryKernel, e.MemoryMapped = keyed(stat, "kernel"), keyed(stat, "file_mapped")
		return
	}
	e.MemoryPeak = readNumber(dir, "memory.max_usage_in_bytes")
	e.MemoryFails = readNumber(dir, "memory.failcnt")
	e.MemoryKernel, e.MemoryMapped = readNumber(dir, "memory.kmem.usage_in_bytes"), keyed(stat, "total_mapped_file")
}

func readHugetlb(dir string, unified bool) []Hugetlb {
	usage, peak := ".usage_in_bytes", ".max_usage_in_bytes"
	if unified {
		usage, peak = ".current", ".max_usage" // v2 keeps no peak
	}
	files, _ := filepath.Glob(filepath.Join(dir, "hugetlb.*"+usage))
	var out []Hugetlb
	for _, f := range files {
		size := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "hugetlb."), usage)
		if strings.Contains(size, ".") {
			continue // hugetlb.2MB.rsvd.current
		}
		out = append(out, Hugetlb{Size: size, Usage: readNumber(dir, filepath.Base(f)), Peak: readNumber(dir, "hugetlb."+size+peak)})
	}
	return out
}

// readProcesses walks the cgroup and those below it.
func readProcesses(e *Extra, dir string) {
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		for pid := range strings.FieldsSeq(readText(path, "cgroup.procs")) {
			e.Processes++
			if e.OpenFilesSoft == 0 {
				e.OpenFilesSoft = openFiles(readText("/proc", pid+"/limits"))
			}
			fds, sockets := descriptors(filepath.Join("/proc", pid, "fd"))
			e.Descriptors, e.Sockets = e.Descriptors+fds, e.Sockets+sockets
		}
		return nil
	})
}

func descriptors(dir string) (all, sockets uint64) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0
	}
	for _, d := range list {
		all++
		if to, err := os.Readlink(filepath.Join(dir, d.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			sockets++
		}
	}
	return all, sockets
}

// openFiles reads the soft limit of proc_pid_limits(5).
func openFiles(text string) uint64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				n, _ := strconv.ParseUint(f[0], 10, 64)
				return n
			}
		}
	}
	return 0
}

// parseIOStat reads cgroup v2's io.stat: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...".
func parseIOStat(text string) []Device {
	var out []Device
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		d, ok := device(f[0])
		if !ok {
			continue
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, _ := strconv.ParseUint(v, 10, 64)
			switch k {
			case "rbytes":
				d.ReadBytes = n
			case "wbytes":
				d.WriteBytes = n
			case "rios":
				d.ReadOps = n
			case "wios":
				d.WriteOps = n
			}
		}
		out = append(out, d)
	}
	return out
}

// parseBlkio reads cgroup v1's pair of files: "8:0 Read 123".
func parseBlkio(bytes, ops string) []Device {
	var out []Device
	index := map[string]int{}
	read := func(text string, r, w func(*Device) *uint64) {
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) != 3 {
				continue
			}
			d, ok := device(f[0])
			if !ok {
				continue
			}
			i, known := index[f[0]]
			if !known {
				i = len(out)
				index[f[0]] = i
				out = append(out, d)
			}
			n, _ := strconv.ParseUint(f[2], 10, 64)
			switch f[1] {
			case "Read":
				*r(&out[i]) = n
			case "Write":
				*w(&out[i]) = n
			}
		}
	}
	read(bytes, func(d *Device) *uint64 { return &d.ReadBytes }, func(d *Device) *uint64 { return &d.WriteBytes })
	read(ops, func(d *Device) *uint64 { return &d.ReadOps }, func(d *Device) *uint64 { return &d.WriteOps })
	return out
}

func device(number string) (Device, bool) {
	major, minor, ok := strings.Cut(number, ":")
	return Device{Major: major, Minor: minor}, ok && major != "" && minor != ""
}

// ParseNetDev reads proc_net_dev(5): two head lines, then per interface bytes,
// packets, errs, drop, fifo, frame, compressed and multicast received, and eight
// of what was sent. The loopback is left out.
func ParseNetDev(text string) []Interface {
	var out []Interface
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		name = strings.TrimSpace(name)
		if !ok || len(f) < 16 || name == "lo" {
			continue
		}
		at := func(i int) uint64 {
			n, _ := strconv.ParseUint(f[i], 10, 64)
			return n
		}
		out = append(out, Interface{
			Name: name, RxBytes: at(0), RxPackets: at(1), RxErrors: at(2), RxDropped: at(3),
			TxBytes: at(8), TxPackets: at(9), TxErrors: at(10), TxDropped: at(11),
		})
	}
	return out
}

func readText(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return string(b)
}

func readNumber(dir, name string) uint64 {
	n, err := strconv.ParseUint(strings.TrimSpace(readText(dir, name)), 10, 64)
	if err != nil {
		return 0 // "max", or not there
	}
	return n
}

// keyed finds "key number" among lines.
func keyed(text, key string) uint64 {
	for line := range strings.Lines(text) {
		var k string
		var n uint64
		if c, _ := fmt.Sscan(line, &k, &n); c == 2 && k == key {
			return n
		}
	}
	return 0
}
