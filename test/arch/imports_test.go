package arch

import (
	"strings"
	"testing"
)

// denied is the import matrix as prefixes: packages under `from` may not import packages under `to`.
// Paths of this module are written without the module's name.
var denied = []struct {
	from, to []string
	why      string
}{
	{[]string{"kubelet"}, []string{"runtime", "cri", "image", "network", "proxy", "controlplane"},
		"the kubelet knows the runtime only as CRI, so that either can be swapped for its upstream peer"},
	{[]string{"cri"}, []string{"kubelet", "proxy", "volume", "controlplane", "network/netfilter", "k8s.io/api/", "k8s.io/client-go/kubernetes"},
		"the CRI server composes runtime, image and network, and knows no Kubernetes objects"},
	{[]string{"runtime"}, []string{"kubelet", "cri", "image", "network", "proxy", "volume", "controlplane", "k8s.io/"},
		"a runtime knows processes, not Kubernetes"},
	{[]string{"image"}, []string{"kubelet", "cri", "runtime", "network", "proxy", "volume", "controlplane", "k8s.io/"},
		"an image store knows bytes, not Kubernetes"},
	{[]string{"network"}, []string{"kubelet", "cri", "runtime", "image", "proxy", "volume", "controlplane", "k8s.io/cri-api"},
		"the network knows pods only as addresses"},
	{[]string{"network/netfilter"}, []string{"network", "k8s.io/"}, "netfilter is a leaf"},
	{[]string{"proxy"}, []string{"kubelet", "cri", "runtime", "image", "volume", "controlplane"}, "the proxy turns Services into a ruleset and nothing else"},
	{[]string{"volume"}, []string{"kubelet", "cri", "runtime", "image", "network", "proxy", "controlplane", "k8s.io/cri-api"}, "volumes become host paths"},
	{[]string{"controlplane"}, []string{"kubelet", "cri", "runtime", "image", "network", "proxy", "volume", "k8s.io/cri-api"},
		"the control plane knows nothing of a node's insides"},
	{[]string{"controlplane/scheduler", "controlplane/controller"}, []string{"controlplane/store", "controlplane/apiserver", "controlplane/auth", "controlplane/resource", "controlplane/admission"},
		"scheduler and controllers are API clients: no side door"},
	{[]string{""}, []string{"k8s.io/kubernetes"}, "repackaging upstream is what others do"},
}

// only lists libraries that one place alone may import.
var only = []struct {
	library string
	allowed []string
}{
	{"github.com/opencontainers/runc", []string{"runtime/engine/libcontainer", "cmd/keelson-keeper"}},
	{"github.com/vishvananda/netlink", []string{"network", "proxy", "test"}},
	{"go.etcd.io/etcd", []string{"controlplane/store"}},
}

// leaves may be imported by all of the node's parts, since they import the standard library alone.
var leaves = []string{"runtime/failpoint"}

func TestImportMatrix(t *testing.T) {
	files, err := sources()
	if err != nil {
		t.Fatalf("read the module's sources: %v", err)
	}
	if len(files) < 20 {
		t.Fatalf("found %d files: the walk is broken", len(files))
	}
	for _, f := range files {
		for _, imp := range f.imports {
			own, isOwn := strings.CutPrefix(imp, module+"/")
			if why := breach(f, own, imp, isOwn); why != "" {
				if _, listed := importExceptions[f.pkg+" -> "+imp]; !listed {
					t.Errorf("%s imports %s: %s", f.path, imp, why)
				}
			}
		}
	}
}

func breach(f file, own, imp string, isOwn bool) string {
	if isOwn && (under(own, "cmd") || under(own, "test")) && !under(f.pkg, "test") && !under(f.pkg, "cmd") {
		return "nobody imports cmd or test"
	}
	if anyUnder(f.pkg, leaves) && strings.Contains(imp, ".") {
		return "a leaf imports the standard library alone"
	}
	if isOwn && anyUnder(own, leaves) {
		return ""
	}
	for _, d := range denied {
		for _, from := range d.from {
			if !under(f.pkg, from) {
				continue
			}
			for _, to := range d.to {
				external := strings.Contains(strings.SplitN(to, "/", 2)[0], ".")
				if external && strings.HasPrefix(imp, to) {
					return d.why
				}
				// A parent may use its own subtree: network/netfilter may not import network, but itself.
				if !external && isOwn && under(own, to) && !under(own, from) && !f.test {
					return d.why
				}
			}
		}
	}
	for _, o := range only {
		if strings.HasPrefix(imp, o.library) && !f.test && !anyUnder(f.pkg, o.allowed) {
			return o.library + " is used only under " + strings.Join(o.allowed, ", ")
		}
	}
	return ""
}

func anyUnder(pkg string, dirs []string) bool {
	for _, d := range dirs {
		if under(pkg, d) {
			return true
		}
	}
	return false
}

// under reports whether pkg is dir or below it; "" is the module's root, above everything.
func under(pkg, dir string) bool {
	return dir == "" || pkg == dir || strings.HasPrefix(pkg, dir+"/")
}

// TestBreachDetects makes sure that the matrix can fail.
func TestBreachDetects(t *testing.T) {
	for _, c := range []struct {
		pkg, imp string
		want     bool
	}{
		{"kubelet/act", module + "/cri", true},
		{"kubelet/act", module + "/volume", false},
		{"cri", "k8s.io/api/core/v1", true},
		{"cri", "k8s.io/cri-api/pkg/apis/runtime/v1", false},
		{"network/netfilter", module + "/network", true},
		{"network", module + "/network/netfilter", false},
		{"controlplane/scheduler", module + "/controlplane/store", true},
		{"controlplane/apiserver", "go.etcd.io/etcd/client/v3", true},
		{"controlplane/store", "go.etcd.io/etcd/client/v3", false},
		{"proxy", "k8s.io/kubernetes/pkg/proxy", true},
		{"image", module + "/test/e2e", true},
		{"image", module + "/runtime/failpoint", false},
		{"image", module + "/runtime/bundle", true},
		{"runtime/failpoint", module + "/runtime/bundle", true},
	} {
		own, isOwn := strings.CutPrefix(c.imp, module+"/")
		if got := breach(file{pkg: c.pkg}, own, c.imp, isOwn) != ""; got != c.want {
			t.Errorf("breach(%s -> %s) = %v, want %v", c.pkg, c.imp, got, c.want)
		}
	}
}
