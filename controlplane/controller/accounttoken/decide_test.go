package accounttoken

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDecide(t *testing.T) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "u"}}
	secret := func(uid, token, ca, namespace string) *corev1.Secret {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Annotations: map[string]string{corev1.ServiceAccountNameKey: "a"}},
			Data: map[string][]byte{"token": []byte(token), "ca.crt": []byte(ca), "namespace": []byte(namespace)}}
		if uid != "" {
			s.Annotations[corev1.ServiceAccountUIDKey] = uid
		}
		return s
	}
	for _, c := range []struct {
		name    string
		secret  *corev1.Secret
		account *corev1.ServiceAccount
		want    action
	}{
		{"new", secret("", "", "", ""), account, fill},
		{"complete", secret("u", "t", "ca", "ns"), account, nothing},
		{"without token", secret("u", "", "ca", "ns"), account, fill},
		{"another CA", secret("u", "t", "old", "ns"), account, fill},
		{"another namespace", secret("u", "t", "ca", "x"), account, fill},
		{"no account", secret("u", "t", "ca", "ns"), nil, remove},
		{"another account of that name", secret("old", "t", "ca", "ns"), account, remove},
	} {
		if got := decide(c.secret, c.account, []byte("ca")); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
