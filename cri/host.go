package cri

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/translate"
)

// hostFacts reads once what the machine offers and does not change.
func hostFacts(systemd, ignoreSELinux bool) (translate.Host, error) {
	h := translate.Host{Systemd: systemd, IgnoreSELinux: ignoreSELinux}
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil {
		return h, fmt.Errorf("look at /sys/fs/cgroup: %w", err)
	}
	h.Unified = fs.Type == unix.CGROUP2_SUPER_MAGIC
	caps, err := heldCapabilities()
	if err != nil {
		return h, err
	}
	h.Capabilities = caps
	h.OOMScoreAdjMin = oomFloor(caps)
	h.Userns = usernsWorks()
	h.AppArmor = startsWith("/sys/module/apparmor/parameters/enabled", "Y")
	h.SELinux = exists("/sys/fs/selinux/enforce")
	if h.Unified {
		h.Hugetlb = controllers("/sys/fs/cgroup/cgroup.controllers")["hugetlb"]
		h.SwapAccounting = swapFile()
	} else {
		h.Hugetlb = exists("/sys/fs/cgroup/hugetlb/tasks")
		h.SwapAccounting = exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
	}
	return h, nil
}

// usernsWorks: the kernel has user namespaces, lets some be made, and overlay
// (Linux 5.19) and tmpfs (6.3: projected volumes) take id-mapped mounts.
func usernsWorks() bool {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil || !exists("/proc/self/ns/user") || startsWith("/proc/sys/user/max_user_namespaces", "0\n") {
		return false
	}
	var major, minor int
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); n != 2 {
		return false
	}
	return major > 6 || major == 6 && minor >= 3
}

// heldCapabilities are the effective ones of this process.
func heldCapabilities() ([]string, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, fmt.Errorf("read own capabilities: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		hex, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("read own capabilities: %w", err)
		}
		var out []string
		for n := range 64 {
			if name := translate.CapabilityName(n); name != "" && mask&(1<<n) != 0 {
				out = append(out, name)
			}
		}
		return out, nil
	}
	return nil, errors.New("read own capabilities: /proc/self/status has no CapEff")
}

// oomFloor is the least oom_score_adj that may be set: any with CAP_SYS_RESOURCE,
// else not below what this process has (proc_pid_oom_score_adj(5)).
func oomFloor(caps []string) int {
	for _, c := range caps {
		if c == "CAP_SYS_RESOURCE" {
			return -1000
		}
	}
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}

func startsWith(path, prefix string) bool {
	b, err := os.ReadFile(path)
	return err == nil && strings.HasPrefix(string(b), prefix)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func controllers(path string) map[string]bool {
	b, err := os.ReadFile(path)
	out := map[string]bool{}
	if err == nil {
		for _, c := range strings.Fields(string(b)) {
			out[c] = true
		}
	}
	return out
}

// swapFile: the root cgroup has no memory.swap.max, so any child tells.
func swapFile() bool {
	m, err := filepath.Glob("/sys/fs/cgroup/*/memory.swap.max")
	return err == nil && len(m) > 0
}

// hostDevices walks /dev for a privileged container. What a container gets of
// its own (pts, shm, mqueue, console) is left out.
func hostDevices() ([]translate.Device, error) {
	var out []translate.Device
	err := filepath.WalkDir("/dev", func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // it went away while we walked
		case err != nil:
			return err
		case d.IsDir():
			switch path {
			case "/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/.lxc", "/dev/.lxd-mounts", "/dev/hugepages":
				return filepath.SkipDir
			}
			return nil
		case d.Name() == "console" || d.Type()&fs.ModeDevice == 0:
			return nil
		}
		dev, err := deviceNode(path)
		if err != nil {
			return nil
		}
		dev.Permissions = "rwm"
		out = append(out, dev)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list host devices: %w", err)
	}
	return out, nil
}

// deviceNode describes the device at path, which is not followed if it is a link.
func deviceNode(path string) (translate.Device, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return translate.Device{}, fmt.Errorf("device %s: %w", path, err)
	}
	d := translate.Device{
		Path: path, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		d.Type = "c"
	case unix.S_IFBLK:
		d.Type = "b"
	default:
		return translate.Device{}, invalid("%s is not a device", path)
	}
	return d, nil
}

// requestedDevices finds the nodes of the devices that a request names. A
// directory means every device in it, at the same place under the container's.
func requestedDevices(asked []*runtimeapi.Device) ([]translate.Device, error) {
	var out []translate.Device
	for _, a := range asked {
		path, err := filepath.EvalSymlinks(a.GetHostPath())
		if err != nil {
			return nil, fmt.Errorf("device %s: %w", a.GetHostPath(), err)
		}
		if fi, err := os.Stat(path); err == nil && !fi.IsDir() {
			d, err := deviceNode(path)
			if err != nil {
				return nil, err
			}
			d.Path, d.Permissions = a.GetContainerPath(), a.GetPermissions()
			out = append(out, d)
			continue
		}
		err = filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
			if err != nil || e.Type()&fs.ModeDevice == 0 {
				return err
			}
			d, err := deviceNode(p)
			if err != nil {
				return err
			}
			d.Path, d.Permissions = filepath.Join(a.GetContainerPath(), strings.TrimPrefix(p, path)), a.GetPermissions()
			out = append(out, d)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("devices in %s: %w", a.GetHostPath(), err)
		}
	}
	return out, nil
}

// mountPeers reads the propagation of the mount points that hold paths. It reads
// the mount table once, and only when a request needs it.
func mountPeers(paths []string) (map[string]translate.Peer, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	defer f.Close()
	infos, err := mountinfo.GetMountsFromReader(bufio.NewReader(f), nil)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	out := map[string]translate.Peer{}
	for _, p := range paths {
		best := ""
		for _, m := range infos {
			if (p == m.Mountpoint || m.Mountpoint == "/" || strings.HasPrefix(p, m.Mountpoint+"/")) && len(m.Mountpoint) >= len(best) {
				best = m.Mountpoint
				switch {
				case strings.Contains(m.Optional, "shared:"):
					out[p] = translate.PeerShared
				case strings.Contains(m.Optional, "master:"):
					out[p] = translate.PeerSlave
				default:
					out[p] = translate.PeerPrivate
				}
			}
		}
	}
	return out, nil
}
