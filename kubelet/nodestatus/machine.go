package nodestatus

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Machine is what a machine is, apart from what it does. Sizes in bytes.
type Machine struct {
	Cores                         int
	MemoryBytes, SwapBytes        int64
	HugePages                     map[string]int64 // page size as in "2Mi" -> bytes
	Kernel, OSImage, Arch         string
	MachineID, SystemUUID, BootID string
}

// ReadMachine reads /proc and /sys.
func ReadMachine() (Machine, error) {
	m := Machine{Cores: runtime.NumCPU(), Arch: runtime.GOARCH, HugePages: map[string]int64{}}
	mem, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return m, fmt.Errorf("read the size of memory: %w", err)
	}
	for line := range bytes.Lines(mem) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "MemTotal:":
			m.MemoryBytes = n << 10
		case "SwapTotal:":
			m.SwapBytes = n << 10
		}
	}
	if m.MemoryBytes == 0 {
		return m, fmt.Errorf("read the size of memory: /proc/meminfo has no MemTotal")
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, fmt.Errorf("uname: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(u.Release[:])
	m.OSImage = osImage("/etc/os-release")
	m.MachineID = first("/etc/machine-id", "/var/lib/dbus/machine-id")
	m.SystemUUID = first("/sys/class/dmi/id/product_uuid", "/proc/device-tree/vm,uuid", "/etc/machine-id")
	m.BootID = first("/proc/sys/kernel/random/boot_id")
	m.hugePages("/sys/kernel/mm/hugepages")
	return m, nil
}

func (m *Machine) hugePages(dir string) {
	entries, _ := os.ReadDir(dir) // absent on kernels without huge pages
	for _, e := range entries {
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		n, _ := strconv.ParseInt(first(filepath.Join(dir, e.Name(), "nr_hugepages")), 10, 64)
		name := strconv.FormatInt(kb>>10, 10) + "Mi"
		if kb >= 1<<20 {
			name = strconv.FormatInt(kb>>20, 10) + "Gi"
		}
		m.HugePages[name] = n * kb << 10
	}
}

// first returns the trimmed content of the first file that can be read.
func first(paths ...string) string {
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	return ""
}

func osImage(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "Linux"
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, is := strings.CutPrefix(s.Text(), "PRETTY_NAME="); is {
			return strings.Trim(v, `"`)
		}
	}
	return "Linux"
}

// Disk is the size of the filesystem that holds path, in bytes and inodes.
func Disk(path string) (total, free, inodes, inodesFree uint64, err error) {
	var st unix.Statfs_t
	for {
		err = unix.Statfs(path, &st)
		if err == nil || path == "/" {
			break
		}
		path = filepath.Dir(path) // not made yet: its parent is on the same filesystem or will do
	}
	if err != nil {
		return 0, 0, 0, 0, fmt.Errorf("size of filesystem at %s: %w", path, err)
	}
	bs := uint64(st.Bsize)
	return st.Blocks * bs, st.Bavail * bs, st.Files, st.Ffree, nil
}

// Allocatable is what pods may have of cpu (thousandths of a core) and memory (bytes).
func Allocatable(m Machine, reserved corev1.ResourceList) (milliCPU, memory int64) {
	milliCPU = int64(m.Cores)*1000 - reserved.Cpu().MilliValue()
	memory = m.MemoryBytes - reserved.Memory().Value()
	return max(milliCPU, 0), max(memory, 0)
}

// defaultIPs are this machine's addresses on the default route, IPv4 first. Nothing is sent: connecting a UDP socket
// only asks the routing table.
func defaultIPs() []netip.Addr {
	var out []netip.Addr
	for network, target := range map[string]string{"udp4": "198.51.100.1:9", "udp6": "[2001:db8::1]:9"} {
		c, err := net.Dial(network, target)
		if err != nil {
			continue
		}
		if a, is := c.LocalAddr().(*net.UDPAddr); is {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap().IsGlobalUnicast() {
				out = append(out, ip.Unmap())
			}
		}
		c.Close()
	}
	if len(out) == 2 && out[0].Is6() {
		out[0], out[1] = out[1], out[0]
	}
	if len(out) > 0 {
		return out[:1] // one family unless configured: dual stack is a decision, not a guess
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() {
			return []netip.Addr{p.Addr()}
		}
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
}
