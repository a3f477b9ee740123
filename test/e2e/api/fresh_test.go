package api

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// notHere are accounts of upstream's parts whose work is done otherwise here.
var notHere = map[string]string{
	"device-taint-eviction-controller": "devices are allocated by who publishes them",
	"expand-controller":                "claims grow by persistent-volume-binder and csi-controller",
	"ttl-controller":                   "kubelets watch what they read; there is no time to live to tell them",
}

// TestFreshObjects: what a fresh upstream 1.37.2 holds by itself is here too, but for what is told with its reason.
func TestFreshObjects(t *testing.T) {
	c := labtest.Cluster(t)
	f, err := os.Open("../../../controlplane/apiserver/testdata/upstream/objects-of-a-fresh-cluster-1.37.2.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	labtest.Eventually(t, "leases and accounts of the server", func() string { // they are made once it is ready
		out := labtest.Kubectl(t, c, "get", "leases,serviceaccounts", "-n", "kube-system", "-o", "name")
		if strings.Count(out, "lease") < 3 || !strings.Contains(out, "serviceaccount/validatingadmissionpolicy-status-controller") { // the last
			return out
		}
		return ""
	})
	have := labtest.Kubectl(t, c, "get", "configmaps,endpointslices,ipaddresses,leases,services,serviceaccounts,servicecidrs", "-A", "-o", "name")
	n := 0
	for sc := bufio.NewScanner(f); sc.Scan(); n++ {
		kind, name, _ := strings.Cut(sc.Text(), "/")
		switch {
		case kind == "serviceaccount" && notHere[name] != "":
			continue
		case strings.HasPrefix(name, "apiserver-"):
			name = "apiserver-" // and a hash of the machine's name
		case name == "n1":
			name = c.NodeName
		case kind == "ipaddress.networking.k8s.io":
			name = labtest.Kubectl(t, c, "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
		}
		if !strings.Contains(have, kind+"/"+name) {
			t.Errorf("%s/%s is missing", kind, name)
		}
	}
	if n < 40 {
		t.Errorf("upstream's list has only %d lines", n)
	}
	if out := labtest.Kubectl(t, c, "get", "clustertrustbundles", "--field-selector=spec.signerName=kubernetes.io/kube-apiserver-serving",
		"-o", "jsonpath={.items[*].spec.trustBundle}"); strings.Count(out, "BEGIN CERTIFICATE") != 1 {
		t.Errorf("roots of the API server: %q", out)
	}
	out := labtest.Kubectl(t, c, "get", "--raw", "/readyz?verbose")
	for _, part := range []string{"etcd", "disk", "bootstrap"} {
		if !strings.Contains(out, fmt.Sprintf("[+]%s ok", part)) {
			t.Errorf("readyz has no %s:\n%s", part, out)
		}
	}
}
