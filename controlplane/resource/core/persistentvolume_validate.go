package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/persistentvolume"
)

func validateVolume(v *corev1.PersistentVolume) field.ErrorList {
	return append(persistentvolume.Validate(&v.Spec, v.Name, field.NewPath("spec")), validateMountOptions(v)...)
}

// validateMountOptions refuses the annotation, the options' old form, for what is not mounted with options.
func validateMountOptions(v *corev1.PersistentVolume) field.ErrorList {
	if _, annotated := v.Annotations[corev1.MountOptionAnnotation]; !annotated {
		return nil
	}
	s := &v.Spec
	if s.GCEPersistentDisk != nil || s.AWSElasticBlockStore != nil || s.Glusterfs != nil || s.NFS != nil || s.RBD != nil ||
		s.Quobyte != nil || s.ISCSI != nil || s.Cinder != nil || s.CephFS != nil || s.AzureFile != nil || s.VsphereVolume != nil ||
		s.AzureDisk != nil || s.PhotonPersistentDisk != nil {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("metadata", "annotations", corev1.MountOptionAnnotation),
		"may not specify mount options for this volume type")}
}

// oldVolumeLabels are the labels whose successors an update may name in their place.
var oldVolumeLabels = map[string]string{
	corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
	"beta.kubernetes.io/os": corev1.LabelOSStable, "beta.kubernetes.io/arch": corev1.LabelArchStable,
	corev1.LabelInstanceType: corev1.LabelInstanceTypeStable,
}

func validateVolumeUpdate(v, old *corev1.PersistentVolume) field.ErrorList {
	errs := validateVolume(v)
	source := v.Spec.PersistentVolumeSource
	if source.CSI != nil && old.Spec.CSI != nil && old.Spec.CSI.ControllerExpandSecretRef == nil {
		csi := *source.CSI // this one secret may be added later
		csi.ControllerExpandSecretRef = nil
		source.CSI = &csi
	}
	if !equality.Semantic.DeepEqual(source, old.Spec.PersistentVolumeSource) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "persistentvolumesource"),
			fmt.Sprintf("spec.persistentvolumesource is immutable after creation\n%v", diff.Diff(check.Shown(old.Spec.PersistentVolumeSource), check.Shown(source)))))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(v.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if old.Spec.NodeAffinity != nil && !sameAffinity(v.Spec.NodeAffinity, old.Spec.NodeAffinity) {
		errs = append(errs, field.Invalid(field.NewPath("nodeAffinity"), v.Spec.NodeAffinity,
			apivalidation.FieldImmutableErrorMsg+", except for updating from beta label to GA"))
	}
	if old.Spec.VolumeAttributesClassName != nil && v.Spec.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

// sameAffinity compares after giving old labels their new names where the new affinity has them.
func sameAffinity(now, was *corev1.VolumeNodeAffinity) bool {
	if now == nil || now.Required == nil || was.Required == nil || len(now.Required.NodeSelectorTerms) != len(was.Required.NodeSelectorTerms) {
		return equality.Semantic.DeepEqual(now, was)
	}
	renamed := was.DeepCopy()
	for i, term := range now.Required.NodeSelectorTerms {
		old := renamed.Required.NodeSelectorTerms[i].MatchExpressions
		for j := range min(len(term.MatchExpressions), len(old)) {
			if key := term.MatchExpressions[j].Key; oldVolumeLabels[old[j].Key] == key {
				old[j].Key = key
			}
		}
	}
	return equality.Semantic.DeepEqual(now, renamed)
}
