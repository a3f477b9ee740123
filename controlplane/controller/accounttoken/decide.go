package accounttoken

import (
	"bytes"

	corev1 "k8s.io/api/core/v1"
)

type action string

const (
	nothing    action = "nothing"
	fill       action = "fill"
	remove     action = "remove"
	invalidate action = "invalidate" // refuse the token from now on
)

// decide says what a Secret needs; account is nil if there is none of that name.
func decide(s *corev1.Secret, account *corev1.ServiceAccount, ca []byte) action {
	uid := s.Annotations[corev1.ServiceAccountUIDKey]
	if account == nil || uid != "" && uid != string(account.UID) {
		return remove // another account of the same name has no right to what was given to the first
	}
	if uid == "" || len(s.Data[corev1.ServiceAccountTokenKey]) == 0 || !bytes.Equal(s.Data[corev1.ServiceAccountRootCAKey], ca) ||
		string(s.Data[corev1.ServiceAccountNamespaceKey]) != s.Namespace {
		return fill
	}
	return nothing
}
