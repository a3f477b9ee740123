package resourcek8s

import (
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/volumesource"
)

// stamp notes when a taint was added, from which its tolerations count. It is done as the object is written and
// not as a default: what was stored must read the same tomorrow.
func stamp(t *resourcev1.DeviceTaint) {
	if t.TimeAdded == nil {
		t.TimeAdded = &metav1.Time{Time: time.Now().Truncate(time.Second)}
	}
}

func stampSlice(s *resourcev1.ResourceSlice) {
	for i := range s.Spec.Devices {
		for j := range s.Spec.Devices[i].Taints {
			stamp(&s.Spec.Devices[i].Taints[j])
		}
	}
}

func validateTaintRule(s *resourcev1.DeviceTaintRuleSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if d := s.DeviceSelector; d != nil {
		at := path.Child("deviceSelector")
		if d.Driver != nil {
			errs = append(errs, volumesource.CSIDriver(*d.Driver, at.Child("driver"))...)
		}
		if d.Pool != nil {
			errs = append(errs, validatePool(*d.Pool, at.Child("pool"))...)
		}
		if d.Device != nil {
			errs = append(errs, validateLabel(*d.Device, at.Child("device"))...)
		}
	}
	return append(errs, validateTaint(&s.Taint, path.Child("taint"))...)
}

func validateTaint(t *resourcev1.DeviceTaint, path *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabelName(t.Key, path.Child("key"))
	if t.Value != "" {
		errs = append(errs, check.Strings(validation.IsValidLabelValue(t.Value), path.Child("value"), t.Value)...)
	}
	if t.Effect == "" {
		return append(errs, field.Required(path.Child("effect"), ""))
	}
	return append(errs, validateEffect(t.Effect, path.Child("effect"))...)
}

func validateEffect(e resourcev1.DeviceTaintEffect, path *field.Path) field.ErrorList {
	return check.OneOf(e, path, resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone)
}
