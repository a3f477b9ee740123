package e2e

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"

	"keelson.dev/keelson/test/lab"
)

// host is what uninstall must leave as it was.
type host struct{ links, mounts, rules, netns, cgroups, processes string }

// without leaves out what other instances of the lab do at the same time: their links begin with their bridges' names, their chains
// with a prefix made from these.
func (h host) without(others func(line string) bool) host {
	keep := func(text string) (kept string) {
		for line := range strings.Lines(text) {
			if !others(line) {
				kept += line
			}
		}
		return kept
	}
	h.links, h.rules = keep(h.links), keep(h.rules)
	return h
}

var (
	labLink  = regexp.MustCompile(`^klab\d+`)
	labChain = regexp.MustCompile(`\bK[0-9A-F]{6}-`)
)

func look(t *testing.T, dir, cgroup string) host {
	t.Helper()
	var h host
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		h.links += i.Name + "\n"
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		h.mounts += m.Mountpoint + "\n"
	}
	for _, tool := range []string{"iptables-save", "ip6tables-save"} {
		out, err := exec.CommandContext(t.Context(), tool).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(out), "\n") {
			if strings.HasPrefix(line, "-A") || strings.HasPrefix(line, ":") && !strings.Contains(line, "ACCEPT") {
				h.rules += line + "\n"
			}
		}
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroup)
	h.cgroups = strings.Join(left, "\n")
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && strings.HasPrefix(exe, dir) {
			h.processes += link + " " + exe + "\n"
		}
	}
	return h
}

// TestUninstallLeavesNothing: with pods running, a killed server and all.
func TestUninstallLeavesNothing(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("", "keelson-uninstall-")
	if err != nil {
		t.Fatal(err)
	}
	cgroup := "/keelson-uninstall-" + strconv.Itoa(os.Getpid())
	before := look(t, dir, cgroup)
	c, err := start(t.Context(), lab.Options{Dir: dir, Flags: []string{"--cgroup-root", cgroup}})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range []string{"one", "two"} {
		apply := strings.NewReader(strings.ReplaceAll(counter, "%s", pod))
		if out, errs, err := c.KubectlIn(t.Context(), apply, "apply", "-f", "-"); err != nil {
			t.Fatal(err, out, errs)
		}
		waitPod(t, c, pod, "condition=Ready")
	}
	masquerade := regexp.MustCompile(`-A (K[0-9A-F]{6}-)NET-POSTROUTING -s ` + regexp.QuoteMeta(c.PodCIDR)).FindStringSubmatch(look(t, dir, cgroup).rules)
	if masquerade == nil {
		t.Fatalf("no rule is about the pods' addresses, %s", c.PodCIDR)
	}
	others := func(line string) bool {
		link, chain := labLink.FindString(line), labChain.FindString(line)
		return link != "" && link != c.Bridge || chain != "" && chain != masquerade[1]
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(context.Background()); err != nil {
		t.Fatal(err)
	}
	if before, after := before.without(others), look(t, dir, cgroup).without(others); after != before {
		t.Errorf("left behind:\n%+v\nbefore:\n%+v", after, before)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

// TestStaticPod: a file in the manifests folder is a pod, seen in the API, and gone with the file.
func TestStaticPod(t *testing.T) {
	c := cluster(t)
	file := filepath.Join(c.Manifests(), "static.yaml")
	manifest := "apiVersion: v1\nkind: Pod\nmetadata: {name: static}\nspec: {containers: [{name: a, image: \"" + lab.HelloImage + "\", imagePullPolicy: Never}]}\n"
	if err := os.MkdirAll(c.Manifests(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file) })
	name := "static-" + c.NodeName
	eventually(t, "the mirror pod is Running", func() string {
		out, errs, _ := c.Kubectl(t.Context(), "get", "pod", name, "-o", "jsonpath={.status.phase}")
		if out != "Running" {
			return out + errs
		}
		return ""
	})
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes with the file", func() string {
		out, errs, err := c.Kubectl(t.Context(), "get", "pod", name, "-o", "name")
		if err == nil || !strings.Contains(errs, "not found") {
			return out + errs
		}
		return ""
	})
}

// TestImages: pull, list, export, remove, import, without the API.
func TestImages(t *testing.T) {
	c := cluster(t)
	run := func(args ...string) string {
		t.Helper()
		out, err := c.Run(t.Context(), append([]string{"image"}, args...)...)
		if err != nil {
			t.Fatalf("keelson image %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	const name = "docker.io/library/busybox:1.28"
	run("pull", "busybox:1.28")
	if out := run("ls"); !strings.Contains(out, name) || !strings.Contains(out, lab.HelloImage) {
		t.Errorf("image ls:\n%s", out)
	}
	run("verify", name)
	file := filepath.Join(t.TempDir(), "busybox.tar")
	run("export", name, "-o", file)
	run("rm", name)
	if out := run("ls"); strings.Contains(out, name) {
		t.Errorf("removed and still listed:\n%s", out)
	}
	if out, err := c.Run(t.Context(), "image", "rm", name); err == nil || !strings.Contains(out, "no image") {
		t.Errorf("removing what is not there: %v %q", err, out)
	}
	if out, err := c.Run(t.Context(), "image", "pull", "-u", "name-alone", name); err == nil || !strings.Contains(out, "a password is missing") {
		t.Errorf("a name without a password: %v %q", err, out)
	}
	run("import", file)
	if out := run("ls"); !strings.Contains(out, name) {
		t.Errorf("imported and not listed:\n%s", out)
	}
}

// TestCheck: says of this machine that it is good enough, line by line.
func TestCheck(t *testing.T) {
	c := cluster(t)
	out, err := c.Run(t.Context(), "check")
	if err != nil || !strings.Contains(out, "ok      cgroups") {
		t.Errorf("keelson check: %v\n%s", err, out)
	}
}

// closedPort is a port on which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
