package core

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/column"
	"keelson.dev/keelson/controlplane/resource/persistentvolume"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

func persistentVolumeKind() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "PersistentVolume", Plural: "persistentvolumes", ShortNames: []string{"pv"},
		New:       func() runtime.Object { return &corev1.PersistentVolume{} },
		NewList:   func() runtime.Object { return &corev1.PersistentVolumeList{} },
		HasStatus: true,
		Columns:   volumeColumns(),
	}, resource.Rules[*corev1.PersistentVolume]{
		Default: defaultVolume,
		PrepareForCreate: func(_ context.Context, v *corev1.PersistentVolume) {
			now := metav1.Now()
			v.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: &now}
		},
		Validate: func(_ context.Context, v *corev1.PersistentVolume) field.ErrorList { return validateVolume(v) },
		ValidateUpdate: func(_ context.Context, v, old *corev1.PersistentVolume) field.ErrorList {
			return validateVolumeUpdate(v, old)
		},
		PrepareStatusUpdate: func(_ context.Context, v, old *corev1.PersistentVolume) { stampPhase(&v.Status, &old.Status) },
		ValidateStatusUpdate: func(_ context.Context, v, _ *corev1.PersistentVolume) field.ErrorList {
			if v.ResourceVersion == "" {
				return field.ErrorList{field.Required(field.NewPath("resourceVersion"), "")}
			}
			return nil
		},
		Warnings: func(_ context.Context, v, _ *corev1.PersistentVolume) []string { return volumeWarnings(v) },
	})
}

// stampPhase notes when the phase changed, unless the writer did.
func stampPhase(now, was *corev1.PersistentVolumeStatus) {
	switch stamp := now.LastPhaseTransitionTime; {
	case now.Phase == was.Phase && stamp == nil:
		now.LastPhaseTransitionTime = was.LastPhaseTransitionTime
	case now.Phase != was.Phase && (stamp == nil || stamp.Equal(was.LastPhaseTransitionTime)):
		t := metav1.Now()
		now.LastPhaseTransitionTime = &t
	}
}

func defaultVolume(v *corev1.PersistentVolume) {
	if v.Status.Phase == "" {
		v.Status.Phase = corev1.VolumePending
	}
	spec := &v.Spec
	if spec.PersistentVolumeReclaimPolicy == "" {
		spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	if spec.VolumeMode == nil {
		mode := corev1.PersistentVolumeFilesystem
		spec.VolumeMode = &mode
	}
	persistentvolume.Default(spec)
}

func volumeColumns() []resource.Column {
	type pv = *corev1.PersistentVolume
	col := func(name, doc string, value func(pv) string) resource.Column {
		return resource.Col(name, "string", column.Doc(corev1.PersistentVolumeSpec{}, doc), 0, func(v pv) any { return value(v) })
	}
	return []resource.Column{
		col("Capacity", "capacity", func(v pv) string { size := v.Spec.Capacity[corev1.ResourceStorage]; return size.String() }),
		col("Access Modes", "accessModes", func(v pv) string { return accessModes(v.Spec.AccessModes) }),
		col("Reclaim Policy", "persistentVolumeReclaimPolicy", func(v pv) string { return string(v.Spec.PersistentVolumeReclaimPolicy) }),
		resource.Col("Status", "string", column.Doc(corev1.PersistentVolumeStatus{}, "phase"), 0, func(v pv) any {
			return phaseText(v.DeletionTimestamp, string(v.Status.Phase))
		}),
		col("Claim", "claimRef", func(v pv) string {
			if v.Spec.ClaimRef == nil {
				return ""
			}
			return v.Spec.ClaimRef.Namespace + "/" + v.Spec.ClaimRef.Name
		}),
		resource.Col("StorageClass", "string", "StorageClass of the pv", 0, func(v pv) any {
			if class, ok := v.Annotations[corev1.BetaStorageClassAnnotation]; ok {
				return class
			}
			return v.Spec.StorageClassName
		}),
		resource.Col("VolumeAttributesClass", "string", "VolumeAttributesClass of the pv", 0,
			func(v pv) any { return cell.Or(v.Spec.VolumeAttributesClassName, "<unset>") }),
		resource.Col("Reason", "string", column.Doc(corev1.PersistentVolumeStatus{}, "reason"), 0, func(v pv) any { return v.Status.Reason }),
		resource.Col("VolumeMode", "string", column.Doc(corev1.PersistentVolumeSpec{}, "volumeMode"), 1,
			func(v pv) any { return cell.Or(v.Spec.VolumeMode, "<unset>") }),
	}
}

func phaseText(deleted *metav1.Time, phase string) string {
	if deleted != nil {
		return "Terminating"
	}
	return phase
}

// accessModes prints the short names, each once, in kubectl's order.
func accessModes(modes []corev1.PersistentVolumeAccessMode) string {
	has := map[corev1.PersistentVolumeAccessMode]bool{}
	for _, m := range modes {
		has[m] = true
	}
	var out []string
	for _, m := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{
		{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"},
	} {
		if has[m.mode] {
			out = append(out, m.short)
		}
	}
	return strings.Join(out, ",")
}

func volumeWarnings(v *corev1.PersistentVolume) []string {
	var w []string
	say := func(when bool, path *field.Path, text string) {
		if when {
			w = append(w, fmt.Sprintf("%s: %s", path, text))
		}
	}
	annotations, spec := field.NewPath("metadata", "annotations"), field.NewPath("spec")
	_, oldClass := v.Annotations[corev1.BetaStorageClassAnnotation]
	_, oldOptions := v.Annotations[corev1.MountOptionAnnotation]
	say(oldClass, annotations.Key(corev1.BetaStorageClassAnnotation), `deprecated since v1.8; use "storageClassName" attribute instead`)
	say(oldOptions, annotations.Key(corev1.MountOptionAnnotation), `deprecated since v1.31; use "mountOptions" attribute instead`)
	say(v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle, spec.Child("persistentVolumeReclaimPolicy"),
		"The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")
	if a := v.Spec.NodeAffinity; a != nil && a.Required != nil {
		for i, term := range a.Required.NodeSelectorTerms {
			w = append(w, podspec.WarningsForNodeTerm(term, false, spec.Child("nodeAffinity", "required", "nodeSelectorTerms").Index(i))...)
		}
	}
	say(v.Spec.CephFS != nil, spec.Child("cephfs"), "deprecated in v1.28, non-functional in v1.31+")
	say(v.Spec.PhotonPersistentDisk != nil, spec.Child("photonPersistentDisk"), "deprecated in v1.11, non-functional in v1.16+")
	say(v.Spec.ScaleIO != nil, spec.Child("scaleIO"), "deprecated in v1.16, non-functional in v1.22+")
	say(v.Spec.StorageOS != nil, spec.Child("storageOS"), "deprecated in v1.22, non-functional in v1.25+")
	say(v.Spec.Glusterfs != nil, spec.Child("glusterfs"), "deprecated in v1.25, non-functional in v1.26+")
	say(v.Spec.RBD != nil, spec.Child("rbd"), "deprecated in v1.28, non-functional in v1.31+")
	return w
}
