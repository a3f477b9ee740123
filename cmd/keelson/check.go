package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// A probe looks at one thing that a node needs. It returns what it found, and, with an error, how to mend it.
type probe struct {
	name     string
	required bool
	look     func(*options) (found, mend string, err error)
}

// probes are in the order in which a newcomer would mend them.
func probes() []probe {
	return []probe{
		{"root", true, probeRoot},
		{"kernel", true, probeKernel},
		{"cgroups", true, probeCgroups("/sys/fs/cgroup")},
		{"overlayfs", true, probeFilesystem("overlay")},
		{"iptables", true, probeProgram("iptables-restore", "iptables")},
		{"conntrack", false, probeProgram("conntrack", "conntrack")},
		{"ip forwarding", false, probeForwarding},
		{"ports", true, probePorts},
		{"disk", true, probeDisk},
		{"open files", false, probeFiles},
		{"inotify", false, probeInotify},
		{"time", false, probeTime},
	}
}

func checkCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Say what this machine lacks to be a node, and how to mend it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if missing := check(o, cmd.OutOrStdout()); missing > 0 {
				return fmt.Errorf("%d required thing(s) missing: see above", missing)
			}
			return nil
		},
	}
	o.serverFlags(cmd)
	return cmd
}

// check runs every probe, prints a line for each and returns how many required ones failed.
func check(o *options, out io.Writer) (missing int) {
	for _, p := range probes() {
		found, mend, err := p.look(o)
		switch {
		case err == nil:
			fmt.Fprintf(out, "ok      %-14s %s\n", p.name, found)
		case p.required:
			missing++
			fmt.Fprintf(out, "MISSING %-14s %v\n        mend: %s\n", p.name, err, mend)
		default:
			fmt.Fprintf(out, "weak    %-14s %v\n        mend: %s\n", p.name, err, mend)
		}
	}
	return missing
}

func probeRoot(*options) (string, string, error) {
	if os.Geteuid() != 0 {
		return "", "run it with sudo", errors.New("not root")
	}
	return "uid 0", "", nil
}

func probeKernel(*options) (string, string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", "", err
	}
	release := unix.ByteSliceToString(u.Release[:])
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, _ := strconv.Atoi(major)
	b, _ := strconv.Atoi(strings.FieldsFunc(minor+" ", func(r rune) bool { return r < '0' || r > '9' })[0])
	if a < 5 || a == 5 && b < 10 {
		return "", "install a kernel of 5.10 or newer (Debian 11, Ubuntu 22.04 and later have one)", fmt.Errorf("kernel %s: pidfds and openat2 need 5.10", release)
	}
	return release, "", nil
}

// probeCgroups looks at the hierarchies below root: one of v2, or one of v1 for each controller.
func probeCgroups(root string) func(*options) (string, string, error) {
	return func(*options) (string, string, error) {
		const mend = "boot with cgroup v2: systemd.unified_cgroup_hierarchy=1; on a Raspberry Pi add cgroup_enable=memory to /boot/firmware/cmdline.txt"
		want := []string{"cpu", "memory", "pids"}
		if data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers")); err == nil {
			have := strings.Fields(string(data))
			for _, c := range want {
				if !slices.Contains(have, c) {
					return "", mend, fmt.Errorf("cgroup v2 without the %s controller", c)
				}
			}
			return "v2: " + strings.Join(have, " "), "", nil
		}
		for _, c := range want {
			if _, err := os.Stat(filepath.Join(root, c)); err != nil {
				return "", mend, fmt.Errorf("no %s controller under %s", c, root)
			}
		}
		return "v1 (works; v2 is better: pressure figures, atomic kill)", "", nil
	}
}

func probeFilesystem(name string) func(*options) (string, string, error) {
	return func(*options) (string, string, error) {
		data, err := os.ReadFile("/proc/filesystems")
		if err == nil && slices.Contains(strings.Fields(string(data)), name) {
			return "in the kernel", "", nil
		}
		if exec.Command("modprobe", name).Run() == nil {
			return "loaded", "", nil
		}
		return "", "modprobe " + name + ", or a kernel that has it", fmt.Errorf("the kernel has no %s", name)
	}
}

func probeProgram(program, pkg string) func(*options) (string, string, error) {
	return func(*options) (string, string, error) {
		path, err := exec.LookPath(program)
		if err != nil {
			return "", "apt-get install " + pkg, fmt.Errorf("no %s in PATH", program)
		}
		return path, "", nil
	}
}

func probeForwarding(*options) (string, string, error) {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		return "", "", err
	}
	if strings.TrimSpace(string(data)) != "1" {
		return "", "keelson turns it on when it starts; net.ipv4.ip_forward=1 in /etc/sysctl.d keeps it", errors.New("off")
	}
	return "on", "", nil
}

func probePorts(o *options) (string, string, error) {
	if pid := runningPid(o.place); pid != 0 {
		return fmt.Sprintf("keelson runs, pid %d", pid), "", nil
	}
	if err := portsFree(o); err != nil {
		return "", "stop who has it, or choose another port", err
	}
	return "free", "", nil
}

func probeDisk(o *options) (string, string, error) {
	const least = 2 << 30
	dir := o.place.Data
	var st unix.Statfs_t
	for unix.Statfs(dir, &st) != nil {
		if dir = dir[:max(strings.LastIndexByte(dir, '/'), 0)]; dir == "" {
			dir = "/"
		}
	}
	free := uint64(st.Bsize) * st.Bavail
	if free < least {
		return "", "free space there, or choose another --data-dir", fmt.Errorf("%d MiB free at %s, 2 GiB wanted", free>>20, dir)
	}
	return fmt.Sprintf("%d GiB free at %s", free>>30, dir), "", nil
}

func probeFiles(*options) (string, string, error) {
	const want = 65536
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return "", "", err
	}
	if l.Max < want {
		return "", "ulimit -n 1048576 before the start (the systemd unit does it)", fmt.Errorf("limit %d", l.Max)
	}
	return strconv.FormatUint(l.Max, 10), "", nil
}

func probeInotify(*options) (string, string, error) {
	const want = 512
	data, err := os.ReadFile("/proc/sys/fs/inotify/max_user_instances")
	if err != nil {
		return "", "a kernel with inotify", err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || n < want {
		return "", "sysctl -w fs.inotify.max_user_instances=8192", fmt.Errorf("max_user_instances is %d, %d wanted", n, want)
	}
	return strconv.Itoa(n) + " instances", "", nil
}

// probeTime: certificates made on a machine whose clock stands in the past do not hold.
func probeTime(*options) (string, string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", "", err
	}
	st, err := os.Stat(self)
	if err != nil {
		return "", "", err
	}
	var now unix.Timeval
	if err := unix.Gettimeofday(&now); err != nil {
		return "", "", err
	}
	if now.Sec < st.ModTime().Unix()-86400 {
		return "", "set the clock (timedatectl set-ntp true)", errors.New("the clock is older than this program")
	}
	return "plausible", "", nil
}
