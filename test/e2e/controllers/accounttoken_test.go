package controllers

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestAccountToken: a Secret asks for a lasting token of a ServiceAccount, and both go with the account.
func TestAccountToken(t *testing.T) {
	t.Parallel() // it waits most of the time
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
---
apiVersion: v1
kind: Secret
metadata: {name: robot, annotations: {kubernetes.io/service-account.name: robot}}
type: kubernetes.io/service-account-token
`)
	var fields []string
	labtest.Eventually(t, "filled", func() string {
		fields = strings.Split(labtest.Kubectl(t, c, "get", "secret", "robot", "-o", `jsonpath={.data.token}|{.data.namespace}|{.data.ca\.crt}`), "|")
		if fields[0] == "" {
			return labtest.Kubectl(t, c, "describe", "secret", "robot")
		}
		return ""
	})
	token, err := base64.StdEncoding.DecodeString(fields[0])
	if err != nil || fields[1] != base64.StdEncoding.EncodeToString([]byte("default")) || fields[2] == "" {
		t.Fatalf("secret: %q (%v)", fields, err)
	}
	config := labtest.Kubectl(t, c, "config", "view", "--raw", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
	as := []string{"--kubeconfig", "/dev/null", "--server", strings.TrimSpace(config), "--insecure-skip-tls-verify", "--token", string(token), "auth", "whoami"}
	if who := labtest.Kubectl(t, c, as...); !strings.Contains(who, "system:serviceaccount:default:robot") {
		t.Errorf("whoami: %s", who)
	}
	// Its use is noted; what is marked as of no use is refused.
	if used := labtest.Kubectl(t, c, "get", "secret", "robot", "-o", `jsonpath={.metadata.labels.kubernetes\.io/legacy-token-last-used}`); len(used) != len(time.DateOnly) {
		t.Errorf("last used %q", used)
	}
	labtest.Kubectl(t, c, "label", "secret", "robot", "kubernetes.io/legacy-token-invalid-since=2026-01-01")
	labtest.Eventually(t, "the token is refused", func() string {
		if out, _, err := c.Kubectl(t.Context(), as...); err == nil {
			return out
		}
		return ""
	})
	labtest.Kubectl(t, c, "label", "secret", "robot", "kubernetes.io/legacy-token-invalid-since-")
	labtest.Eventually(t, "the token is good again", func() string {
		_, errs, _ := c.Kubectl(t.Context(), as...)
		return errs
	})
	labtest.Kubectl(t, c, "delete", "serviceaccount", "robot")
	labtest.Eventually(t, "gone with its account", func() string {
		return labtest.Kubectl(t, c, "get", "secret", "robot", "--ignore-not-found", "-o", "name")
	})
	labtest.Eventually(t, "the token is worth nothing", func() string {
		if out, errs, err := c.Kubectl(t.Context(), as...); err == nil {
			return out + errs
		}
		return ""
	})
}
