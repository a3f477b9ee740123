package main

import (
	"strings"
	"testing"
)

// ND13: what pods, Services and volumes were made with cannot change under them, and the refusal names it; the machine's name and
// addresses may.
func TestHostile_ND13(t *testing.T) {
	dir := t.TempDir()
	started := func(change func(*options)) (options, error) {
		o := options{place: places{Data: dir + "/data", Run: dir + "/run", KubeletRoot: dir + "/kubelet", PodLogs: dir + "/logs", Config: dir + "/etc"},
			node:  nodeOptions{IP: "192.0.2.1", Bridge: "keelson0", PodCIDR: "10.244.0.0/24", ClusterCIDR: "10.244.0.0/16"},
			plane: planeOptions{ServiceCIDR: "10.96.0.0/12", Domain: "cluster.local"}}
		change(&o)
		if err := o.finish(); err != nil {
			return o, err
		}
		i, err := claim(&o)
		if err == nil {
			i.release()
		}
		return o, err
	}
	if _, err := started(func(o *options) { o.node.Name = "first" }); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*options){
		"--node-name was first and is second now":                   func(o *options) { o.node.Name = "second" },
		"--pod-cidr was 10.244.0.0/24 and is 10.244.1.0/24 now":     func(o *options) { o.node.PodCIDR = "10.244.1.0/24" },
		"--cluster-cidr was 10.244.0.0/16 and is 10.244.0.0/15 now": func(o *options) { o.node.ClusterCIDR = "10.244.0.0/15" },
		"--service-cidr was 10.96.0.0/12 and is 10.112.0.0/12 now":  func(o *options) { o.plane.ServiceCIDR = "10.112.0.0/12" },
		"--cluster-domain was cluster.local and is example now":     func(o *options) { o.plane.Domain = "example" },
		"--bridge was keelson0 and is other0 now":                   func(o *options) { o.node.Bridge = "other0" },
	} {
		if _, err := started(change); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir+"/data") {
			t.Errorf("%v, want %q and the folder in it", err, want)
		}
	}
	// A range of the other family may join, and leaves no more.
	dual := func(o *options) { o.plane.ServiceCIDR = "10.96.0.0/12,fd00:43::/112" }
	for range 2 {
		if _, err := started(dual); err != nil {
			t.Error(err)
		}
	}
	if _, err := started(func(*options) {}); err == nil || !strings.Contains(err.Error(), "--service-cidr was 10.96.0.0/12,fd00:43::/112 and is 10.96.0.0/12 now") {
		t.Errorf("without the second family: %v", err)
	}
	// The host's name is not asked again; another address is followed.
	if o, err := started(func(o *options) { o.node.IP = "192.0.2.2"; dual(o) }); err != nil || o.node.Name != "first" || o.node.IP != "192.0.2.2" {
		t.Errorf("with another address: %+v, %v", o.node, err)
	}
}
