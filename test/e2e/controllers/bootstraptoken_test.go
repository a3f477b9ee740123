package controllers

import (
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestBootstrapToken: cluster-info is signed by the tokens there are, and a token past its end goes.
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
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cluster-info, namespace: kube-public}
data: {kubeconfig: "apiVersion: v1"}
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
	labtest.Eventually(t, "the token past its end is deleted", func() string {
		return labtest.Kubectl(t, c, "-n", "kube-system", "get", "secret", "bootstrap-token-ended0", "--ignore-not-found", "-o", "name")
	})
	labtest.Kubectl(t, c, "-n", "kube-system", "delete", "secret", "bootstrap-token-abcdef")
	signatures("unsigned with the token's end", "")
}
