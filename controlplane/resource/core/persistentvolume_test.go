package core

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/claim"
	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestMoreSourcesThanOne(t *testing.T) {
	v := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		PersistentVolumeSource: corev1.PersistentVolumeSource{
			NFS:        &corev1.NFSVolumeSource{Server: "s", Path: "/p"},
			CephFS:     &corev1.CephFSPersistentVolumeSource{},
			FlexVolume: &corev1.FlexPersistentVolumeSource{},
			StorageOS:  &corev1.StorageOSPersistentVolumeSource{},
		}}}
	resourcetest.CheckErrors(t, validateVolume(v),
		"spec.cephFS: Forbidden: may not specify more than 1 volume type",
		"spec.flexVolume.driver: Required value",
		"spec.storageos: Forbidden: may not specify more than 1 volume type")
	v.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{ISCSI: &corev1.ISCSIPersistentVolumeSource{TargetPortal: "t", IQN: "x"}}
	resourcetest.CheckErrors(t, validateVolume(v), `spec.iscsi.iqn: Invalid value: "x": must be valid format`)
}

func TestSourceElsewhere(t *testing.T) {
	elsewhere := "other"
	ref := func() *corev1.TypedObjectReference {
		return &corev1.TypedObjectReference{Kind: "PersistentVolumeClaim", Name: "c", Namespace: &elsewhere}
	}
	spec := &corev1.PersistentVolumeClaimSpec{DataSourceRef: ref()}
	if prepareSources(spec, nil); spec.DataSourceRef != nil || spec.DataSource != nil {
		t.Errorf("new claim: %+v", spec)
	}
	spec = &corev1.PersistentVolumeClaimSpec{DataSourceRef: ref()}
	if prepareSources(spec, &corev1.PersistentVolumeClaimSpec{DataSourceRef: ref()}); spec.DataSourceRef == nil || spec.DataSource != nil {
		t.Errorf("claim that has one: %+v", spec)
	}
}

// A group that no rule would accept now does not keep its claim from other changes.
func TestSourceGroupOfOld(t *testing.T) {
	group, mode := "Not_A_Domain", corev1.PersistentVolumeFilesystem
	c := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, VolumeMode: &mode,
		Resources:  corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		DataSource: &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "K", Name: "x"}}}
	resourcetest.CheckErrors(t, validateClaimUpdate(c.DeepCopy(), c))
	resourcetest.CheckErrors(t, claim.ValidateSpec(&c.Spec, field.NewPath("spec")), "spec.dataSource.apiGroup: Invalid value")
}
