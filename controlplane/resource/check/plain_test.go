package check

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPlain(t *testing.T) {
	for _, c := range []struct {
		of   any
		want string
	}{
		{corev1.Toleration{Key: "a"}, `{"Key":"a","Operator":"","Value":"","Effect":"","TolerationSeconds":null}`},
		{(*corev1.Toleration)(nil), "null"},
		{[]corev1.ConfigMapKeySelector{}, "[]"},
		{[]corev1.ConfigMapKeySelector(nil), "null"},
		{corev1.ConfigMapKeySelector{Key: "k"}, `{"Name":"","Key":"k","Optional":null}`},
		{map[string]corev1.ContainerPort{"b": {}, "a": {HostIP: "x"}},
			`{"a":{"Name":"","HostPort":0,"ContainerPort":0,"Protocol":"","HostIP":"x"},"b":{"Name":"","HostPort":0,"ContainerPort":0,"Protocol":"","HostIP":""}}`},
		{resourcev1.Counter{Value: resource.MustParse("1Gi")}, `{"Value":"1Gi"}`},
		{resourcev1.ResourceClaimTemplateSpec{ObjectMeta: metav1.ObjectMeta{Name: "n"}},
			`{"name":"n","Spec":{"Devices":{"Requests":null,"Constraints":null,"Config":null}}}`},
	} {
		if got := string(Plain(c.of)); got != c.want {
			t.Errorf("%T: %s, want %s", c.of, got, c.want)
		}
	}
}
