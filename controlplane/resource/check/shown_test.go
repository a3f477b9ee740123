package check

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestShown(t *testing.T) {
	for want, v := range map[string]any{
		`{"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":"x","NodePort":0}`: corev1.ServicePort{
			Protocol: "TCP", Port: 80, TargetPort: intstr.FromString("x")},
		`[{"Key":"a","Value":"b","Effect":"","TimeAdded":null}]`: []corev1.Taint{{Key: "a", Value: "b"}},
		`{"MatchExpressions":null}`:                              &corev1.ScopeSelector{},
		`null`:                                                   (*corev1.ScopeSelector)(nil),
		`{"cpu":"1"}`:                                            corev1.ResourceList{"cpu": resource.MustParse("1")},
		`{"matchLabels":{"a":"b"}}`:                              metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
		`{"Type":"","Limits":null}`:                              struct{ Type, Limits any }{"", nil},
		`{"Value":"1Gi"}`:                                        resourcev1.Counter{Value: resource.MustParse("1Gi")},
		`[]`:                                                     []corev1.ConfigMapKeySelector{},
		`{"a":{"Name":"","HostPort":0,"ContainerPort":0,"Protocol":"","HostIP":"x"},"b":null}`: map[string]*corev1.ContainerPort{"b": nil, "a": {HostIP: "x"}},
		`["a"]`:                []string{"a"},
		`{"x":{"Handler":""}}`: map[string]struct{ Handler string }{"x": {}},
	} {
		got, err := json.Marshal(Shown(v))
		if err != nil || string(got) != want {
			t.Errorf("Shown(%#v) = %s, %v; want %s", v, got, err, want)
		}
	}
	// Embedded structs lend their fields to the one around them.
	got, err := json.Marshal(Shown(corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Name: "n"}}))
	if want := `{"name":"n","Spec":{"Volumes":null`; err != nil || string(got[:len(want)]) != want {
		t.Errorf("a template is shown as %s, %v", got, err)
	}
	got, err = json.Marshal(Shown(corev1.PersistentVolumeClaim{TypeMeta: metav1.TypeMeta{Kind: "PersistentVolumeClaim"}, ObjectMeta: metav1.ObjectMeta{Name: "n"}}))
	if want := `{"name":"n","Spec":{`; err != nil || string(got[:len(want)]) != want {
		t.Errorf("a claim is shown as %s, %v", got, err)
	}
}

func TestTidy(t *testing.T) {
	p := field.NewPath("spec")
	errs := Tidy(field.ErrorList{field.Invalid(p, "a", "m"), field.Required(p, ""), field.Invalid(p, "a", "m"), field.Invalid(p, "b", "m")})
	if len(errs) != 3 || errs[2].BadValue != "b" {
		t.Errorf("got %v", errs)
	}
}

func TestDeclared(t *testing.T) {
	p := field.NewPath("spec")
	errs := Tidy(Declared(field.ErrorList{field.Duplicate(p, corev1.Taint{Key: "a"}), field.Invalid(p, "a", "m"), field.Invalid(p, nil, "m")}))
	for i, want := range []string{`spec: Duplicate value: {"key":"a","effect":""}`, `spec: Invalid value: "a": m`, "spec: Invalid value: null: m"} {
		if got := errs[i].Error(); got != want {
			t.Errorf("got %s; want %s", got, want)
		}
	}
}

func TestFinalizers(t *testing.T) {
	errs := Finalizers(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{"a/b", "orphan", "kubernetes", "x"}}})
	if len(errs) != 1 || errs[0].Field != "metadata.finalizers[3]" {
		t.Errorf("got %v", errs)
	}
}
