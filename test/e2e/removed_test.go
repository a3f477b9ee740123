package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab"
)

// ND22: an administrator's script removes the node's bridge, routes, packet filter chains and empty cgroups: pods reach each other and
// Services again, none is started anew, new ones start, and the Node's Events say what happened.
func TestHostile_ND22(t *testing.T) {
	c := ownCluster(t, lab.Options{})
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {app: %s}}\nspec: {terminationGracePeriodSeconds: 0, containers: [{name: a, image: \"busybox:1.28\", command: [sh, -c, \"echo here >/index.html; exec httpd -f -h /\"]}]}\n"
	apply(t, c, fmt.Sprintf(pod, "one", "removed"))
	apply(t, c, fmt.Sprintf(pod, "two", "removed"))
	apply(t, c, "apiVersion: v1\nkind: Service\nmetadata: {name: removed}\nspec: {selector: {app: removed}, ports: [{port: 80}]}\n")
	lives := map[string]life{}
	ips := map[string]string{}
	for _, p := range []string{"one", "two"} {
		waitPod(t, c, p, "condition=Ready")
		lives[p], ips[p] = lifeOf(t, c, p), kubectl(t, c, "get", "pod", p, "-o", "jsonpath={.status.podIP}")
	}
	reached := func() string {
		for _, way := range [][2]string{{"one", ips["two"]}, {"two", ips["one"]}, {"one", "removed"}, {"two", "removed"}} {
			if out, errs, err := c.Kubectl(t.Context(), "exec", way[0], "--", "timeout", "5", "wget", "-q", "-O", "-", "http://"+way[1]); err != nil || out != "here\n" {
				return fmt.Sprintf("%s asks %s: %q %s", way[0], way[1], out, errs)
			}
		}
		return ""
	}
	eventually(t, "before anything is removed", reached)
	cgroups, err := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/keelson-lab-%d/kubepods/burstable", c.Port))
	if err != nil {
		t.Fatal(err)
	}
	if one := fmt.Sprintf("/sys/fs/cgroup/keelson-lab-%d/kubepods/burstable", c.Port); len(cgroups) == 0 {
		cgroups = []string{one}
	}
	for _, script := range []string{"ip link del " + c.Bridge, "ip route del " + ips["one"], fmt.Sprintf("for l in $(ls /sys/class/net | grep ^%s-); do ip link del $l; done", c.Bridge)} {
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", script).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		eventually(t, "after "+script, reached)
	}
	for _, dir := range cgroups { // no pod is Burstable, so they are empty
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the class' cgroups", func() string {
		for _, dir := range cgroups {
			if _, err := os.Stat(dir); err != nil {
				return err.Error()
			}
		}
		return ""
	})
	for p, before := range lives {
		if after := lifeOf(t, c, p); after != before {
			t.Errorf("%s was started anew: %+v, was %+v", p, after, before)
		}
	}
	apply(t, c, fmt.Sprintf(pod, "three", "later"))
	waitPod(t, c, "three", "condition=Ready")
	eventually(t, "the Node's Events", func() string {
		out := kubectl(t, c, "describe", "node", c.NodeName)
		for _, want := range []string{"NetworkRepaired", "the bridge " + c.Bridge, "the link, route or settings of pod default/one", "CgroupsRepaired", "kubepods/burstable"} {
			if !strings.Contains(out, want) {
				return fmt.Sprintf("no %q in\n%s", want, out)
			}
		}
		return ""
	})
}
