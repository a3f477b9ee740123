package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Mode is how the machine's control groups are laid out.
type Mode int

// The modes. In Hybrid the limits are v1's and a v2 tree without controllers
// exists beside them.
const (
	V1 Mode = iota + 1
	V2
	Hybrid
)

func (m Mode) String() string {
	switch m {
	case V1:
		return "v1"
	case V2:
		return "v2"
	case Hybrid:
		return "hybrid"
	}
	return "none"
}

// Root is where the hierarchies are mounted.
const Root = "/sys/fs/cgroup"

// Hierarchy is a machine's layout: for v2 one mount point under the key "",
// for v1 one for each controller ("memory", "cpu", "name=systemd") and, for a
// hybrid, the v2 tree under "".
type Hierarchy struct {
	Mode   Mode
	Mounts map[string]string
	// Systemd says that groups named *.slice and *.scope are units of systemd's,
	// made and limited through it. Detect leaves it false: it is the operator's.
	Systemd bool
}

// ErrNoCgroups says that no usable hierarchy is mounted under Root.
var ErrNoCgroups = errors.New("no cgroup hierarchy is mounted under " + Root)

var detected = sync.OnceValues(func() (Hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return Hierarchy{}, fmt.Errorf("detect cgroups: %w", err)
	}
	defer f.Close()
	h, err := Parse(f)
	if err != nil {
		return Hierarchy{}, fmt.Errorf("detect cgroups: %w", err)
	}
	return h, nil
})

// Detect says how this machine's control groups are laid out. The first answer
// is kept: the layout does not change while a machine runs.
func Detect() (Hierarchy, error) { return detected() }

// Parse reads the layout from the text of /proc/<pid>/mountinfo.
func Parse(mountinfo io.Reader) (Hierarchy, error) {
	h := Hierarchy{Mounts: map[string]string{}}
	lines := bufio.NewScanner(mountinfo)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		point := left[4]
		if point != Root && filepath.Dir(point) != Root {
			continue
		}
		switch right[0] {
		case "cgroup2":
			h.Mounts[""] = point
		case "cgroup":
			for _, opt := range strings.Split(right[2], ",") {
				if name, ok := controllerName(opt); ok {
					h.Mounts[name] = point
				}
			}
		}
	}
	if err := lines.Err(); err != nil {
		return Hierarchy{}, err
	}
	_, unified := h.Mounts[""]
	switch {
	case len(h.Mounts) == 0:
		return Hierarchy{}, ErrNoCgroups
	case unified && len(h.Mounts) == 1 && h.Mounts[""] == Root:
		h.Mode = V2
	case unified:
		h.Mode = Hybrid
	default:
		h.Mode = V1
	}
	return h, nil
}

// controllerName tells a v1 controller among the mount options.
func controllerName(opt string) (string, bool) {
	switch opt {
	case "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio",
		"pids", "hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc":
		return opt, true
	}
	return opt, strings.HasPrefix(opt, "name=")
}

// Unified says whether limits are those of cgroup v2.
func (h Hierarchy) Unified() bool { return h.Mode == V2 }

// Group names a group by its path below the root. The path is cleaned, so that
// it cannot leave the root.
func (h Hierarchy) Group(path string) Group {
	return Group{hierarchy: h, path: filepath.Clean("/" + path)}
}

// dirs are the group's directories, one for each different mount point.
func (g Group) dirs() []string {
	seen := map[string]bool{}
	var out []string
	for _, mount := range g.hierarchy.Mounts {
		if !seen[mount] {
			seen[mount] = true
			out = append(out, filepath.Join(mount, g.path))
		}
	}
	return out
}

// dir is the group's directory for one controller; "" when there is none.
func (g Group) dir(controller string) string {
	if g.hierarchy.Unified() {
		controller = ""
	}
	mount, ok := g.hierarchy.Mounts[controller]
	if !ok {
		return ""
	}
	return filepath.Join(mount, g.path)
}

// procsDir is the directory in which all processes of the group are looked
// for: any will do, since a process joins all of them together.
func (g Group) procsDir() string {
	for _, controller := range []string{"freezer", "devices", "pids", "memory", "cpu"} {
		if dir := g.dir(controller); dir != "" {
			return dir
		}
	}
	dirs := g.dirs()
	if len(dirs) == 0 {
		return ""
	}
	return dirs[0]
}

func isGone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV)
}
