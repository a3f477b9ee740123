package api

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestFreshObjects: what a fresh upstream 1.37.2 holds by itself is here too, but for what is told with its reason.
func TestFreshObjects(t *testing.T) {
	c := labtest.Cluster(t)
	f, err := os.Open("../../../controlplane/apiserver/testdata/upstream/objects-of-a-fresh-cluster-1.37.2.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	labtest.Eventually(t, "leases of the server", func() string { // they are made once it is ready
		if out := labtest.Kubectl(t, c, "get", "leases", "-n", "kube-system", "-o", "name"); strings.Count(out, "\n") < 3 {
			return out
		}
		return ""
	})
	have := labtest.Kubectl(t, c, "get", "configmaps,endpointslices,ipaddresses,leases,services,serviceaccounts,servicecidrs", "-A", "-o", "name")
	n := 0
	for sc := bufio.NewScanner(f); sc.Scan(); n++ {
		kind, name, _ := strings.Cut(sc.Text(), "/")
		switch {
		case kind == "serviceaccount" && name != "default":
			continue // of upstream's controllers, which get tokens for them; here they act under these names within the server
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
	out := labtest.Kubectl(t, c, "get", "--raw", "/readyz?verbose")
	for _, part := range []string{"etcd", "disk", "bootstrap"} {
		if !strings.Contains(out, fmt.Sprintf("[+]%s ok", part)) {
			t.Errorf("readyz has no %s:\n%s", part, out)
		}
	}
}
