package crash

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// state is what of a node's can leak, as text: name -> what it is. Spare pod
// networks come and go; of them only the number counts.
type state map[string]string

// look takes the state as it is now.
func (n *node) look() state {
	s := state{}
	n.lookAtMounts(s)
	n.lookAtNetwork(s)
	n.lookAtCgroups(s)
	n.lookAtProcesses(s)
	n.lookAtFiles(s)
	return s
}

// difference is what is new or gone in b.
func difference(a, b state) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if have, ok := a[k]; !ok {
			out = append(out, fmt.Sprintf("left: %s %s", k, b[k]))
		} else if have != b[k] {
			out = append(out, fmt.Sprintf("changed: %s: %s, was %s", k, b[k], have))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if _, ok := b[k]; !ok {
			out = append(out, "gone: "+k)
		}
	}
	return strings.Join(out, "\n")
}

// checkNothingLeft waits until the node is as it was at first.
func (n *node) checkNothingLeft(t *testing.T) {
	t.Helper()
	eventually(t, "all is as before", func() string { return difference(n.baseline, n.look()) })
}

func (n *node) lookAtMounts(s state) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	pins := 0
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 5 || !strings.HasPrefix(fields[4], n.Dir+"/") {
			continue
		}
		if strings.HasPrefix(fields[4], n.Dir+"/run/network/netns/") {
			pins++
			continue
		}
		s["mount "+fields[4]] = ""
	}
	s["pinned network namespaces"] = fmt.Sprint(pins)
}

func (n *node) lookAtNetwork(s state) {
	count := func(pattern string) string {
		found, _ := filepath.Glob(pattern)
		return fmt.Sprint(len(found))
	}
	s["namespace files"] = count(n.Dir + "/run/network/netns/*")
	s["addresses"] = count(n.Dir + "/run/network/ipam/*")
	s["links"] = count("/sys/class/net/" + n.bridge() + "-*")
	if rules, err := exec.Command("iptables-save").Output(); err == nil {
		for line := range strings.Lines(string(rules)) {
			if strings.Contains(line, podNamespace+"/"+filepath.Base(n.Dir)) {
				s["rule "+strings.TrimSpace(line)] = ""
			}
		}
	}
}

func (n *node) lookAtCgroups(s state) {
	for _, top := range n.cgroups() {
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && path != top && filepath.Dir(path) != top {
				s["cgroup "+path] = ""
			}
			return nil
		})
	}
}

// cgroups are the node's top cgroups, one per hierarchy.
func (n *node) cgroups() []string {
	one, _ := filepath.Glob("/sys/fs/cgroup" + n.cgroupRoot())
	many, _ := filepath.Glob("/sys/fs/cgroup/*" + n.cgroupRoot())
	return append(one, many...)
}

// lookAtProcesses finds what is in the node's cgroups, the keeper's and the
// daemon's children, and the descriptors that the two hold of containers.
func (n *node) lookAtProcesses(s state) {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	keeper, _ := n.Keeper()
	for _, dir := range procs {
		cgroup, err := os.ReadFile(dir + "/cgroup")
		if err != nil {
			continue
		}
		stat, _ := os.ReadFile(dir + "/stat")
		args, _ := os.ReadFile(dir + "/cmdline")
		what := strings.TrimSpace(strings.ReplaceAll(string(args), "\x00", " "))
		_, after, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(after)
		if strings.Contains(string(cgroup), n.cgroupRoot()+"/") {
			s["process "+filepath.Base(dir)] = what
		}
		if len(fields) > 1 && keeper != 0 && fields[1] == fmt.Sprint(keeper) && what != "keelson-launcher" {
			s["child of the keeper "+filepath.Base(dir)] = what
		}
	}
	n.lookAtDescriptors(s, "keeper", keeper)
	n.lookAtDescriptors(s, "daemon", n.Pid())
}

// lookAtDescriptors counts those that belong to containers. A daemon that
// started the keeper itself has a pidfd of it, one that found it has none.
func (n *node) lookAtDescriptors(s state, who string, pid int) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	pidfds := 0
	for _, link := range links {
		to, _ := os.Readlink(link)
		switch {
		case strings.Contains(to, "pidfd"):
			pidfds++
		case strings.HasPrefix(to, n.Dir+"/run/runtime/containers/") && !strings.Contains(to, "/.keeper/"),
			strings.HasPrefix(to, n.Dir+"/logs/"), strings.HasPrefix(to, "/dev/pt"), strings.HasPrefix(to, "net:["), strings.HasPrefix(to, n.Dir+"/data/agent/images/layers"):
			s[who+"'s descriptor "+to] = ""
		}
	}
	if pidfds > 1 {
		s[who+"'s pidfds"] = fmt.Sprint(pidfds)
	}
}

// lookAtFiles lists the runtime's state and the image store, by name.
func (n *node) lookAtFiles(s state) {
	for _, top := range []string{"run/runtime/containers", "run/runtime/sandboxes", "run/cri", "data/agent/images"} {
		root := filepath.Join(n.Dir, top)
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(n.Dir, path)
			switch {
			case err != nil:
				return nil
			case d.IsDir() && d.Name() == ".keeper":
				return fs.SkipDir
			case filepath.Dir(rel) == "data/agent/images/layers":
				return fs.SkipDir // counted below: names are never used twice
			case d.IsDir() && strings.HasPrefix(rel, "data/agent/images/") && strings.Count(rel, "/") > 5:
				return fs.SkipDir
			}
			s["file "+rel] = ""
			return nil
		})
	}
	layers, _ := os.ReadDir(filepath.Join(n.Dir, "data/agent/images/layers"))
	kept := 0
	for _, l := range layers {
		if !strings.HasPrefix(l.Name(), "empty-") { // made once, for mounts of one layer
			kept++
		}
	}
	s["layers"] = fmt.Sprint(kept)
}
