package bootstraptoken

import (
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func token(id, secret, usage string, end time.Time) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secretPrefix + id}, Type: tokenType, Data: map[string][]byte{
		"token-id": []byte(id), "token-secret": []byte(secret), "usage-bootstrap-signing": []byte(usage)}}
	if !end.IsZero() {
		s.Data["expiration"] = []byte(end.Format(time.RFC3339))
	}
	return s
}

func TestSigned(t *testing.T) {
	const secret = "0123456789abcdef"
	data := map[string]string{configKey: "config", signaturePrefix + "gone00": "x", "other": "y"}
	out := signed(data, []*corev1.Secret{
		token("abcdef", secret, "true", time.Time{}), token("later0", secret, "true", now.Add(time.Hour)), token("ended0", secret, "true", now),
		token("nosign", secret, "false", time.Time{}), token("short0", "abc", "true", time.Time{}),
	}, now)
	if len(out) != 4 || out["other"] != "y" || out[signaturePrefix+"later0"] == "" {
		t.Fatalf("data %v", out)
	}
	again := signed(out, []*corev1.Secret{token("abcdef", secret, "true", time.Time{}), token("later0", secret, "true", time.Time{})}, now)
	if !maps.Equal(again, out) {
		t.Errorf("signed again it is another: %v", again)
	}
	if out := signed(map[string]string{"a": "b"}, []*corev1.Secret{token("abcdef", secret, "true", time.Time{})}, now); len(out) != 1 {
		t.Errorf("nothing to sign, but %v", out)
	}
}

// TestDetached: as kubeadm computes and verifies it.
func TestDetached(t *testing.T) {
	got := detached("Hello from the other side. I must have called a thousand times.", "joshua", "my voice is my passcode")
	if want := "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestExpires(t *testing.T) {
	if _, ends := expires(token("a", "b", "", time.Time{})); ends {
		t.Error("a token without an end has one")
	}
	s := token("a", "b", "", now)
	if at, ends := expires(s); !ends || !at.Equal(now) {
		t.Errorf("ends %v", at)
	}
	s.Data["expiration"] = []byte(strings.Repeat("x", 9))
	if at, ends := expires(s); !ends || at.After(now) {
		t.Error("an end that cannot be read is none")
	}
}
