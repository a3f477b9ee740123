package podspec

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// TestHostile_OC16: all of /proc is shown only to pods with a user namespace of
// their own (KEP-4265).
func TestHostile_OC16(t *testing.T) {
	unmasked, odd := corev1.UnmaskedProcMount, corev1.ProcMountType("All")
	for _, c := range []struct {
		mount     *corev1.ProcMountType
		hostUsers bool
		refused   string
	}{
		{&unmasked, true, "hostUsers"}, {&unmasked, false, ""}, {&odd, false, "Unsupported value"}, {nil, true, ""},
	} {
		errs := validateSecurity(&corev1.SecurityContext{ProcMount: c.mount}, c.hostUsers, field.NewPath("securityContext")).ToAggregate()
		if (errs != nil) != (c.refused != "") || errs != nil && !strings.Contains(errs.Error(), c.refused) {
			t.Errorf("procMount %v, host's users %t: %v", c.mount, c.hostUsers, errs)
		}
	}
	// Who says nothing about users has the host's.
	spec := &corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i", SecurityContext: &corev1.SecurityContext{ProcMount: &unmasked}}}}
	if errs := Validate(spec, &metav1.ObjectMeta{}, field.NewPath("spec")).ToAggregate(); errs == nil || !strings.Contains(errs.Error(), "procMount") {
		t.Errorf("a pod that says nothing about its users: %v", errs)
	}
}
