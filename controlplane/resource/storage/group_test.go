package storage

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(),
		resourcetest.Row{Plural: "csidrivers", Kind: "CSIDriver"},
		resourcetest.Row{Plural: "csinodes", Kind: "CSINode"},
		resourcetest.Row{Plural: "csistoragecapacities", Kind: "CSIStorageCapacity", Namespaced: true},
		resourcetest.Row{Plural: "storageclasses", Short: "sc", Kind: "StorageClass"},
		resourcetest.Row{Plural: "volumeattachments", Kind: "VolumeAttachment"},
		resourcetest.Row{Plural: "volumeattributesclasses", Short: "vac", Kind: "VolumeAttributesClass"})
}

func class() *storagev1.StorageClass {
	c := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}, Provisioner: "example.com/disk"}
	c.ReclaimPolicy, c.VolumeBindingMode = ptr.To(corev1.PersistentVolumeReclaimDelete), ptr.To(storagev1.VolumeBindingImmediate)
	return c
}

func driver() *storagev1.CSIDriver {
	d := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "disk.example.com"}}
	defaultDriver(d)
	return d
}

func TestDefaults(t *testing.T) {
	bare := class()
	bare.ReclaimPolicy, bare.VolumeBindingMode = nil, nil
	resourcetest.CheckDefaults(t, resourcetest.Kind(t, Group(), "StorageClass"), bare, class())
	resourcetest.CheckDefaults(t, resourcetest.Kind(t, Group(), "CSIDriver"), driver(), driver())
	if s := driver().Spec; !*s.AttachRequired || *s.FSGroupPolicy != "ReadWriteOnceWithFSType" || s.VolumeLifecycleModes[0] != "Persistent" {
		t.Errorf("%+v", s)
	}
	inline := func(v corev1.ISCSIPersistentVolumeSource) *storagev1.VolumeAttachment {
		return &storagev1.VolumeAttachment{Spec: storagev1.VolumeAttachmentSpec{Source: storagev1.VolumeAttachmentSource{
			InlineVolumeSpec: &corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{ISCSI: &v}}}}}
	}
	resourcetest.CheckDefaults(t, resourcetest.Kind(t, Group(), "VolumeAttachment"),
		inline(corev1.ISCSIPersistentVolumeSource{}), inline(corev1.ISCSIPersistentVolumeSource{ISCSIInterface: "default"}))
}

func TestValidate(t *testing.T) {
	g := Group()
	for _, c := range []struct {
		kind string
		obj  runtime.Object
		want []string
	}{
		{"StorageClass", class(), nil},
		{"StorageClass", &storagev1.StorageClass{}, []string{"provisioner: Required value", "volumeBindingMode: Required value"}},
		{"StorageClass", func() *storagev1.StorageClass {
			c := class()
			c.ReclaimPolicy = ptr.To(corev1.PersistentVolumeReclaimRecycle)
			c.Parameters = map[string]string{"": "x"}
			c.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: "zone"}}}}
			return c
		}(), []string{
			`parameters: Invalid value: "": field can not be empty.`,
			`reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"`,
			"allowedTopologies[0].matchLabelExpressions[0].values: Required value"}},
		{"VolumeAttributesClass", &storagev1.VolumeAttributesClass{DriverName: "a.b"}, []string{"parameters: Required value: must contain at least one key/value pair"}},
		{"CSIDriver", driver(), nil},
		{"CSIDriver", func() *storagev1.CSIDriver {
			d := driver()
			d.Spec.TokenRequests = []storagev1.TokenRequest{{Audience: "a", ExpirationSeconds: ptr.To[int64](5)}, {Audience: "a"}}
			return d
		}(), []string{
			"spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
			`spec.tokenRequests[1].audience: Duplicate value: "a"`}},
		{"CSINode", &storagev1.CSINode{Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "d", NodeID: "n"}, {Name: "d"}}}}, []string{
			"spec.drivers[1].nodeID: Required value", `spec.drivers[1].name: Duplicate value: "d"`}},
		{"CSIStorageCapacity", &storagev1.CSIStorageCapacity{StorageClassName: "fast", Capacity: ptr.To(apiresource.MustParse("-1"))}, []string{
			`capacity: Invalid value: "-1": must be greater than or equal to 0`}},
		{"StorageClass", func() *storagev1.StorageClass {
			c := class()
			c.AllowedTopologies = []corev1.TopologySelectorTerm{{}}
			return c
		}(), []string{`allowedTopologies[0].matchLabelExpressions: Duplicate value: ""`}},
		{"VolumeAttachment", &storagev1.VolumeAttachment{Spec: storagev1.VolumeAttachmentSpec{Attacher: "d", NodeName: "n",
			Source: storagev1.VolumeAttachmentSource{InlineVolumeSpec: &corev1.PersistentVolumeSpec{
				ClaimRef: &corev1.ObjectReference{}, AccessModes: []corev1.PersistentVolumeAccessMode{"x"}, PersistentVolumeReclaimPolicy: "Delete"}}}}, []string{
			"spec.source.inlineVolumeSpec.claimRef: Forbidden: may not be specified in the context of inline volumes",
			"spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
			`spec.source.inlineVolumeSpec.accessModes: Unsupported value: "x"`,
			"spec.source.inlineVolumeSpec.persistentVolumeReclaimPolicy: Forbidden: may only be Retain in the context of inline volumes",
			"spec.source.inlineVolumeSpec: Required value: must specify a volume type"}},
		{"VolumeAttachment", &storagev1.VolumeAttachment{Spec: storagev1.VolumeAttachmentSpec{Attacher: "d", NodeName: "n",
			Source: storagev1.VolumeAttachmentSource{InlineVolumeSpec: &corev1.PersistentVolumeSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, VolumeMode: ptr.To(corev1.PersistentVolumeBlock), StorageClassName: "c",
				PersistentVolumeSource: corev1.PersistentVolumeSource{
					HostPath: &corev1.HostPathVolumeSource{Path: "/a/.."},
					CSI:      &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h"}}}}}}, []string{
			`spec.source.inlineVolumeSpec.hostPath.path: Invalid value: "/a/..": must not contain '..'`,
			"spec.source.inlineVolumeSpec.csi: Forbidden: may not specify more than 1 volume type",
			"spec.source.inlineVolumeSpec.storageClassName: Forbidden: may not be specified in the context of inline volumes",
			"spec.source.inlineVolumeSpec.volumeMode: Forbidden: may not specify volumeMode other than Filesystem in the context of inline volumes"}},
		{"VolumeAttachment", &storagev1.VolumeAttachment{Spec: storagev1.VolumeAttachmentSpec{Attacher: "d", NodeName: "n",
			Source: storagev1.VolumeAttachmentSource{InlineVolumeSpec: &corev1.PersistentVolumeSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				PersistentVolumeSource: corev1.PersistentVolumeSource{
					CSI: &corev1.CSIPersistentVolumeSource{Driver: "d", NodePublishSecretRef: &corev1.SecretReference{Name: "s"}}}}}}}, []string{
			"spec.source.inlineVolumeSpec.csi.volumeHandle: Required value",
			"spec.source.inlineVolumeSpec.csi.nodePublishSecretRef.namespace: Required value"}},
		{"VolumeAttachment", &storagev1.VolumeAttachment{Spec: storagev1.VolumeAttachmentSpec{Attacher: "d", NodeName: "n"}}, []string{
			"spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"}},
	} {
		resourcetest.CheckErrors(t, resourcetest.Kind(t, g, c.kind).Validate(t.Context(), c.obj), c.want...)
	}
}

func TestValidateUpdate(t *testing.T) {
	g := Group()
	changed := class()
	changed.Provisioner, changed.Parameters = "other.com/x", map[string]string{"a": "b"}
	changed.VolumeBindingMode = ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)
	resourcetest.CheckErrors(t, resourcetest.Kind(t, g, "StorageClass").ValidateUpdate(t.Context(), changed, class()),
		"parameters: Invalid value: null: field is immutable", "provisioner: Invalid value: null: field is immutable",
		"volumeBindingMode: Invalid value: null: field is immutable")
	node := func(id string, n int32) *storagev1.CSINode {
		return &storagev1.CSINode{Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "d", NodeID: id, Allocatable: &storagev1.VolumeNodeResources{Count: &n}}}}}
	}
	k := resourcetest.Kind(t, g, "CSINode")
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), node("a", 1), node("a", 2)))
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), node("b", 1), node("a", 1)), `spec.drivers: Invalid value: {"Name":"d","NodeID":"b","TopologyKeys":null,"Allocatable":null}: field is immutable`)
}

func TestColumns(t *testing.T) {
	c := class()
	c.Annotations = map[string]string{defaultAnnotation: "true"}
	names, cells := resourcetest.Cells(resourcetest.Kind(t, Group(), "StorageClass"), c)
	if names != "Name|Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion|Age" || cells[0] != "fast (default)" || cells[4] != false {
		t.Errorf("columns %s, cells %v", names, cells)
	}
	names, cells = resourcetest.Cells(resourcetest.Kind(t, Group(), "CSIDriver"), driver())
	if names != "AttachRequired|PodInfoOnMount|StorageCapacity|TokenRequests|RequiresRepublish|Modes|Age" || cells[3] != "<unset>" || cells[5] != "Persistent" {
		t.Errorf("columns %s, cells %v", names, cells)
	}
	if names, _ = resourcetest.Cells(resourcetest.Kind(t, Group(), "VolumeAttachment"), &storagev1.VolumeAttachment{}); names != "Attacher|PV|Node|Attached|Age" {
		t.Errorf("columns %s", names)
	}
}

func TestWarnings(t *testing.T) {
	d := driver()
	d.Spec.TokenRequests = []storagev1.TokenRequest{{Audience: "a"}}
	k := resourcetest.Kind(t, Group(), "CSIDriver")
	if w := k.Warnings(t.Context(), d, nil); len(w) != 1 {
		t.Errorf("of tokens outside Secrets: %q", w)
	}
	if w := k.Warnings(t.Context(), d, d); len(w) != 0 {
		t.Errorf("of tokens as they were: %q", w)
	}
	c := class()
	c.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: "beta.kubernetes.io/os", Values: []string{"linux"}}}}}
	want := `allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.14; use "kubernetes.io/os" instead`
	if w := resourcetest.Kind(t, Group(), "StorageClass").Warnings(t.Context(), c, nil); len(w) != 1 || w[0] != want {
		t.Errorf("of an old label: %q", w)
	}
	capacity := &storagev1.CSIStorageCapacity{NodeTopology: &metav1.LabelSelector{MatchLabels: map[string]string{"beta.kubernetes.io/os": "linux"}}}
	want = `nodeTopology.matchLabels.beta.kubernetes.io/os: deprecated since v1.14; use "kubernetes.io/os" instead`
	if w := resourcetest.Kind(t, Group(), "CSIStorageCapacity").Warnings(t.Context(), capacity, nil); len(w) != 1 || w[0] != want {
		t.Errorf("of an old label: %q", w)
	}
}
