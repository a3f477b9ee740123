package controllers

import (
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestBootstrapToken: cluster-info is there and signed by the tokens there are, new nodes may ask for certificates, and a token past
// its end goes.
func TestBootstrapToken(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-abcdef, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData: {token-id: abcdef, token-secret: 0123456789abcdef, usage-bootstrap-signing: "true"}
---
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-ended0, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData: {token-id: ended0, token-secret: 0123456789abcdef, usage-bootstrap-signing: "true", expiration: "2020-01-01T00:00:00Z"}
`)
	signatures := func(when, want string) {
		t.Helper()
		labtest.Eventually(t, when, func() string {
			var got []string
			for _, f := range strings.Fields(labtest.Kubectl(t, c, "-n", "kube-public", "get", "configmap", "cluster-info", "-o", `go-template={{range $k, $v := .data}}{{$k}} {{end}}`)) {
				if strings.HasPrefix(f, "jws-") {
					got = append(got, f)
				}
			}
			if all := strings.Join(got, " "); all != want {
				return "signatures: " + all
			}
			return ""
		})
	}
	signatures("signed", "jws-kubeconfig-abcdef")
	if info := labtest.Kubectl(t, c, "-n", "kube-public", "get", "configmap", "cluster-info", "-o", "jsonpath={.data.kubeconfig}"); !strings.Contains(info, "server: https://") ||
		!strings.Contains(info, "certificate-authority-data: ") || strings.Contains(info, "key-data") {
		t.Errorf("cluster-info tells:\n%s", info)
	}
	for _, may := range []struct{ want, group, what string }{
		{"yes", "system:bootstrappers", "get configmaps/cluster-info -n kube-public"},
		{"no", "system:bootstrappers", "get configmaps/kube-root-ca.crt -n kube-public"},
		{"yes", "system:bootstrappers:kubeadm:default-node-token", "create certificatesigningrequests"},
		{"yes", "system:bootstrappers:kubeadm:default-node-token", "create certificatesigningrequests --subresource=nodeclient"},
		{"no", "system:bootstrappers", "create certificatesigningrequests --subresource=nodeclient"},
		{"yes", "system:nodes", "create certificatesigningrequests --subresource=selfnodeclient"},
	} {
		out, _, _ := c.Kubectl(t.Context(), append([]string{"auth", "can-i", "--as=somebody", "--as-group=" + may.group}, strings.Fields(may.what)...)...) // "no" is an error
		if got := strings.TrimSpace(out); got != may.want {
			t.Errorf("%s may %s: %q, want %s", may.group, may.what, got, may.want)
		}
	}
	labtest.Eventually(t, "the token past its end is deleted", func() string {
		return labtest.Kubectl(t, c, "-n", "kube-system", "get", "secret", "bootstrap-token-ended0", "--ignore-not-found", "-o", "name")
	})
	labtest.Kubectl(t, c, "-n", "kube-system", "delete", "secret", "bootstrap-token-abcdef")
	signatures("unsigned with the token's end", "")
}
