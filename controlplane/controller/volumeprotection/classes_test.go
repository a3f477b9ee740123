package volumeprotection

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestGuarded(t *testing.T) {
	for _, c := range []struct {
		have          []string
		deleted, used bool
		want          string
		changed       bool
	}{
		{nil, false, false, classFinalizer, true},
		{[]string{"mine"}, false, true, "mine " + classFinalizer, true},
		{[]string{classFinalizer}, false, false, classFinalizer, false},
		{[]string{classFinalizer}, true, true, classFinalizer, false},
		{[]string{"mine", classFinalizer}, true, false, "mine", true},
		{[]string{"mine"}, true, false, "mine", false},
	} {
		before := slices.Clone(c.have)
		got, changed := guarded(c.have, c.deleted, func() bool { return c.used })
		if strings.Join(got, " ") != c.want || changed != c.changed {
			t.Errorf("%+v: %v, %v", c, got, changed)
		}
		if !slices.Equal(before, c.have) {
			t.Errorf("%+v: the cache's object was changed", c)
		}
	}
}

func TestClassesOf(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{VolumeAttributesClassName: ptr.To("wanted")},
		Status: corev1.PersistentVolumeClaimStatus{CurrentVolumeAttributesClassName: ptr.To("present"),
			ModifyVolumeStatus: &corev1.ModifyVolumeStatus{TargetVolumeAttributesClassName: "next"}}}
	if got := strings.Join(classesOf(claim), " "); got != "wanted present next" {
		t.Error(got)
	}
	none := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{VolumeAttributesClassName: ptr.To("")}}
	if got := append(classesOf(none), append(classesOf(nil), append(classOf(nil), classOf(&corev1.PersistentVolume{})...)...)...); len(got) > 0 {
		t.Error(got)
	}
}
