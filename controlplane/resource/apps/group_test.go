package apps

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(),
		resourcetest.Row{Plural: "controllerrevisions", Kind: "ControllerRevision", Namespaced: true},
		resourcetest.Row{Plural: "daemonsets", Short: "ds", Kind: "DaemonSet", Namespaced: true, Categories: "all"},
		resourcetest.Row{Plural: "deployments", Short: "deploy", Kind: "Deployment", Namespaced: true, Categories: "all"},
		resourcetest.Row{Plural: "replicasets", Short: "rs", Kind: "ReplicaSet", Namespaced: true, Categories: "all"},
		resourcetest.Row{Plural: "statefulsets", Short: "sts", Kind: "StatefulSet", Namespaced: true, Categories: "all"})
}

// The course's manifests: the good ones are accepted, the misprinted one is refused in the words that users know.
func TestCourse(t *testing.T) {
	refused := map[string]string{
		"replicaset-selector-mismatch.yaml": "`selector` does not match template `labels`",
	}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for doc := range bytes.SplitSeq(text, []byte("\n---")) {
				var meta metav1.TypeMeta
				if err := yaml.Unmarshal(doc, &meta); err != nil {
					t.Fatal(err)
				}
				if meta.APIVersion != "apps/v1" {
					continue
				}
				k := resourcetest.Kind(t, Group(), meta.Kind)
				obj := k.New()
				if err := yaml.UnmarshalStrict(doc, obj); err != nil {
					t.Fatal(err)
				}
				k.Default(obj)
				var want []string
				if w := refused[filepath.Base(file)]; w != "" {
					want = []string{w}
				}
				resourcetest.CheckErrors(t, k.Validate(t.Context(), obj), want...)
			}
		})
	}
}

func template() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "a"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "busybox:1"}}},
	}
}

var selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}

func workloads(t *testing.T) map[string]runtime.Object {
	objs := map[string]runtime.Object{
		"Deployment":  &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Selector: selector, Template: template()}},
		"ReplicaSet":  &appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template()}},
		"StatefulSet": &appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Selector: selector, Template: template()}},
		"DaemonSet":   &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template()}},
	}
	for kind, obj := range objs {
		objs[kind] = obj.DeepCopyObject()
		resourcetest.Kind(t, Group(), kind).Default(objs[kind])
	}
	return objs
}

func TestDefaults(t *testing.T) {
	for kind, obj := range workloads(t) {
		resourcetest.CheckDefaults(t, resourcetest.Kind(t, Group(), kind), obj, obj.DeepCopyObject())
		resourcetest.CheckErrors(t, resourcetest.Kind(t, Group(), kind).Validate(t.Context(), obj))
	}
	w := workloads(t)
	d := w["Deployment"].(*appsv1.Deployment)
	if s := d.Spec; *s.Replicas != 1 || s.Strategy.RollingUpdate.MaxSurge.StrVal != "25%" || *s.RevisionHistoryLimit != 10 || *s.ProgressDeadlineSeconds != 600 {
		t.Errorf("deployment: %+v", s)
	}
	if s := w["StatefulSet"].(*appsv1.StatefulSet).Spec; s.PodManagementPolicy != "OrderedReady" || *s.UpdateStrategy.RollingUpdate.Partition != 0 ||
		s.PersistentVolumeClaimRetentionPolicy.WhenDeleted != "Retain" {
		t.Errorf("statefulset: %+v", s)
	}
	if s := w["DaemonSet"].(*appsv1.DaemonSet).Spec; s.UpdateStrategy.RollingUpdate.MaxUnavailable.IntVal != 1 {
		t.Errorf("daemonset: %+v", s)
	}
	ondelete := &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{UpdateStrategy: appsv1.DaemonSetUpdateStrategy{
		Type: appsv1.OnDeleteDaemonSetStrategyType, RollingUpdate: &appsv1.RollingUpdateDaemonSet{}}}}
	resourcetest.Kind(t, Group(), "DaemonSet").Default(ondelete)
	if r := ondelete.Spec.UpdateStrategy.RollingUpdate; r.MaxUnavailable == nil || r.MaxUnavailable.IntVal != 0 || r.MaxSurge == nil {
		t.Errorf("an OnDelete daemonset's rollingUpdate is %+v", r)
	}
	recreate := &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}}}
	resourcetest.Kind(t, Group(), "Deployment").Default(recreate)
	if recreate.Spec.Strategy.RollingUpdate != nil {
		t.Error("a Recreate deployment got rollingUpdate parameters")
	}
}

func TestValidate(t *testing.T) {
	type change struct {
		kind string
		edit func(runtime.Object)
		want []string
	}
	deploy := func(f func(*appsv1.DeploymentSpec)) func(runtime.Object) {
		return func(o runtime.Object) { f(&o.(*appsv1.Deployment).Spec) }
	}
	sts := func(f func(*appsv1.StatefulSetSpec)) func(runtime.Object) {
		return func(o runtime.Object) { f(&o.(*appsv1.StatefulSet).Spec) }
	}
	ds := func(f func(*appsv1.DaemonSetSpec)) func(runtime.Object) {
		return func(o runtime.Object) { f(&o.(*appsv1.DaemonSet).Spec) }
	}
	for _, c := range []change{
		{"Deployment", deploy(func(s *appsv1.DeploymentSpec) { s.Replicas = ptr.To[int32](-1) }),
			[]string{"spec.replicas: Invalid value: -1: must be greater than or equal to 0"}},
		{"Deployment", deploy(func(s *appsv1.DeploymentSpec) { s.Selector = nil }),
			[]string{"spec.selector: Required value", "`selector` does not match template `labels`"}},
		{"Deployment", deploy(func(s *appsv1.DeploymentSpec) { s.Selector = &metav1.LabelSelector{} }),
			[]string{"spec.selector: Invalid value: {}: empty selector is invalid for deployment"}},
		{"Deployment", deploy(func(s *appsv1.DeploymentSpec) { s.Template.Labels = map[string]string{"app": "b"} }),
			[]string{"spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`"}},
		{"Deployment", deploy(func(s *appsv1.DeploymentSpec) { s.Strategy.Type = "Slow" }),
			[]string{`spec.strategy: Unsupported value: {"Type":"Slow"`}},
		{"Deployment", deploy(func(s *appsv1.DeploymentSpec) { s.Strategy.Type = "Recreate" }),
			[]string{"spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"}},
		{"Deployment", deploy(func(s *appsv1.DeploymentSpec) {
			s.Strategy.RollingUpdate.MaxSurge, s.Strategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromInt32(0)), ptr.To(intstr.FromString("0%"))
		}), []string{"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"}},
		{"Deployment", deploy(func(s *appsv1.DeploymentSpec) { s.MinReadySeconds = 600 }),
			[]string{"spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"}},
		{"StatefulSet", sts(func(s *appsv1.StatefulSetSpec) { s.PodManagementPolicy = "Chaos" }),
			[]string{`spec.podManagementPolicy: Invalid value: "Chaos": must be 'OrderedReady' or 'Parallel'`}},
		{"StatefulSet", sts(func(s *appsv1.StatefulSetSpec) {
			s.UpdateStrategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromInt32(0))
		}),
			[]string{"spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"}},
		{"StatefulSet", sts(func(s *appsv1.StatefulSetSpec) { s.UpdateStrategy.Type = "OnDelete" }),
			[]string{`spec.updateStrategy.rollingUpdate: Invalid value: {"Partition":0,"MaxUnavailable":1}: only allowed for updateStrategy 'RollingUpdate'`}},
		{"StatefulSet", sts(func(s *appsv1.StatefulSetSpec) { s.ServiceName = "a.b" }),
			[]string{`spec.serviceName: Invalid value: "a.b": must not contain dots`}},
		{"StatefulSet", sts(func(s *appsv1.StatefulSetSpec) {
			s.RevisionHistoryLimit, s.Template.Spec.Hostname, s.Template.Spec.Subdomain = ptr.To[int32](-1), "A.b", "C.d"
		}), nil},
		{"StatefulSet", sts(func(s *appsv1.StatefulSetSpec) { s.PersistentVolumeClaimRetentionPolicy.WhenScaled = "Burn" }),
			[]string{`spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: "Burn": supported values: "Retain", "Delete"`}},
		{"StatefulSet", sts(func(s *appsv1.StatefulSetSpec) {
			s.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "d"}}}
		}), []string{
			"spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
			"spec.volumeClaimTemplates[0].spec.resources[storage]: Required value"}},
		{"DaemonSet", ds(func(s *appsv1.DaemonSetSpec) { s.UpdateStrategy.RollingUpdate.MaxSurge = ptr.To(intstr.FromInt32(1)) }),
			[]string{"spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"}},
		{"DaemonSet", ds(func(s *appsv1.DaemonSetSpec) {
			s.UpdateStrategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromInt32(0))
		}),
			[]string{"spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"}},
		{"DaemonSet", ds(func(s *appsv1.DaemonSetSpec) { s.Selector = &metav1.LabelSelector{} }),
			[]string{"spec.selector: Invalid value: {}: empty selector is invalid for daemonset"}},
		{"DaemonSet", ds(func(s *appsv1.DaemonSetSpec) { s.Template.Spec.ActiveDeadlineSeconds = ptr.To[int64](5) }),
			[]string{"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported"}},
	} {
		obj := workloads(t)[c.kind]
		c.edit(obj)
		resourcetest.CheckErrors(t, resourcetest.Kind(t, Group(), c.kind).Validate(t.Context(), obj), c.want...)
	}
}

func TestValidateUpdate(t *testing.T) {
	now, was := workloads(t), workloads(t)
	for _, kind := range []string{"Deployment", "ReplicaSet", "DaemonSet", "StatefulSet"} {
		resourcetest.CheckErrors(t, resourcetest.Kind(t, Group(), kind).ValidateUpdate(t.Context(), now[kind], was[kind]))
	}
	other := &metav1.LabelSelector{MatchLabels: map[string]string{"x": "y"}}
	d, s := now["Deployment"].(*appsv1.Deployment), now["StatefulSet"].(*appsv1.StatefulSet)
	d.Spec.Selector, d.Spec.Template.Labels = other, map[string]string{"x": "y"}
	s.Spec.ServiceName = "other"
	resourcetest.CheckErrors(t, resourcetest.Kind(t, Group(), "Deployment").ValidateUpdate(t.Context(), d, was["Deployment"]),
		`spec.selector: Invalid value: {"matchLabels":{"x":"y"}}: field is immutable`)
	resourcetest.CheckErrors(t, resourcetest.Kind(t, Group(), "StatefulSet").ValidateUpdate(t.Context(), s, was["StatefulSet"]),
		`spec.serviceName: Invalid value: "other": field is immutable`)
}

func TestPrepareUpdate(t *testing.T) {
	k, w := resourcetest.Kind(t, Group(), "Deployment"), workloads(t)
	old := w["Deployment"].(*appsv1.Deployment)
	old.Generation, old.Labels = 3, map[string]string{"a": "b"}
	now := old.DeepCopy()
	now.Annotations, now.Labels = map[string]string{"c": "d"}, nil
	k.PrepareForUpdate(t.Context(), now, old)
	k.PrepareStatusUpdate(t.Context(), now, old)
	if now.Generation != 4 || now.Labels["a"] != "b" {
		t.Errorf("a deployment with other annotations has generation %d and labels %v", now.Generation, now.Labels)
	}
	k, ds := resourcetest.Kind(t, Group(), "DaemonSet"), w["DaemonSet"].(*appsv1.DaemonSet)
	ds.Annotations = map[string]string{appsv1.DeprecatedTemplateGeneration: "5"}
	next := ds.DeepCopy()
	next.Annotations[appsv1.DeprecatedTemplateGeneration] = "9"
	k.PrepareStatusUpdate(t.Context(), next, ds)
	if n := next.Annotations[appsv1.DeprecatedTemplateGeneration]; n != "5" {
		t.Errorf("a status update made the template's generation %s, want 5", n)
	}
}

func TestWarnings(t *testing.T) {
	w := workloads(t)
	old := w["StatefulSet"].(*appsv1.StatefulSet)
	old.Generation, old.Spec.RevisionHistoryLimit = 1, ptr.To[int32](-1)
	old.Spec.Template.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{}}
	now, k := old.DeepCopy(), resourcetest.Kind(t, Group(), "StatefulSet")
	if got := k.Warnings(t.Context(), now, old); len(got) != 1 {
		t.Errorf("without a change: %q, want the one about old revisions", got)
	}
	now.Generation = 2
	if got := k.Warnings(t.Context(), now, old); len(got) != 2 {
		t.Errorf("with a change: %q, want that about the secret too", got)
	}
}

func TestValidateStatus(t *testing.T) {
	d := &appsv1.Deployment{Status: appsv1.DeploymentStatus{Replicas: 1, ReadyReplicas: 2, AvailableReplicas: -1}}
	old := &appsv1.Deployment{Status: appsv1.DeploymentStatus{CollisionCount: ptr.To[int32](3)}}
	resourcetest.CheckErrors(t, resourcetest.Kind(t, Group(), "Deployment").ValidateStatusUpdate(t.Context(), d, old),
		"status.availableReplicas: Invalid value: -1: must be greater than or equal to 0",
		"status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
		"status.collisionCount: Invalid value: 0: cannot be decremented")
	old.Status.CollisionCount = ptr.To[int32](0) // taken away, it would be counted from the beginning
	resourcetest.CheckErrors(t, resourcetest.Kind(t, Group(), "Deployment").ValidateStatusUpdate(t.Context(), &appsv1.Deployment{}, old), "cannot be decremented")
}

// Mounts of a claim template's volume are valid although the template names no such volume.
func TestClaimTemplatesAreVolumes(t *testing.T) {
	s := workloads(t)["StatefulSet"].(*appsv1.StatefulSet)
	s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}
	s.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "data"}, {Name: "other"}}
	full := asPods(&s.Spec.Template, s.Spec.VolumeClaimTemplates)
	if v := full.Spec.Volumes; len(v) != 2 || v[0].Name != "data" || v[0].PersistentVolumeClaim == nil || v[1].Name != "other" {
		t.Errorf("volumes %+v", v)
	}
	if v := s.Spec.Template.Spec.Volumes; len(v) != 2 || v[0].PersistentVolumeClaim != nil {
		t.Errorf("the template itself changed: %+v", v)
	}
}

func TestTemplateGeneration(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "DaemonSet")
	d := workloads(t)["DaemonSet"].(*appsv1.DaemonSet)
	d.Annotations = map[string]string{appsv1.DeprecatedTemplateGeneration: "77"}
	k.PrepareForCreate(t.Context(), d)
	next := d.DeepCopy()
	next.Annotations = nil
	next.Spec.Template.Spec.Containers[0].Image = "busybox:2"
	k.PrepareForUpdate(t.Context(), next, d)
	if a, b := d.Annotations[appsv1.DeprecatedTemplateGeneration], next.Annotations[appsv1.DeprecatedTemplateGeneration]; a != "77" || b != "78" {
		t.Errorf("generations %q and %q, want 77 and 78", a, b)
	}
}

// TestAnnotatedFields: what upstream keeps as a field and shows as an annotation is read as upstream reads it.
func TestAnnotatedFields(t *testing.T) {
	for _, c := range []struct{ kind, key, text, want string }{
		{"DaemonSet", appsv1.DeprecatedTemplateGeneration, "x", `DaemonSet in version "v1" cannot be handled as a DaemonSet: strconv.ParseInt: parsing "x": invalid syntax`},
		{"DaemonSet", appsv1.DeprecatedTemplateGeneration, "", `DaemonSet in version "v1" cannot be handled as a DaemonSet: strconv.ParseInt: parsing "": invalid syntax`},
		{"DaemonSet", appsv1.DeprecatedTemplateGeneration, "7", ""},
		{"DaemonSet", "other", "x", ""},
		{"Deployment", appsv1.DeprecatedRollbackTo, "x", `Deployment in version "v1" cannot be handled as a Deployment: failed to parse annotation[deprecated.deployment.rollback.to]=x as int64: strconv.ParseInt: parsing "x": invalid syntax`},
		{"Deployment", appsv1.DeprecatedRollbackTo, "7", ""},
		{"Deployment", appsv1.DeprecatedRollbackTo, "", ""},
	} {
		store := &genericregistry.Store{}
		if _, err := resourcetest.Kind(t, Group(), c.kind).Install(resource.Deps{}, store); err != nil {
			t.Fatal(err)
		}
		obj := workloads(t)[c.kind]
		m, err := meta.Accessor(obj)
		if err != nil {
			t.Fatal(err)
		}
		m.SetAnnotations(map[string]string{c.key: c.text})
		_, made := store.BeginCreate(t.Context(), obj, &metav1.CreateOptions{})
		_, changed := store.BeginUpdate(t.Context(), obj, obj, &metav1.UpdateOptions{})
		for _, err := range []error{made, changed} {
			if (err == nil) != (c.want == "") || err != nil && (err.Error() != c.want || !apierrors.IsBadRequest(err)) {
				t.Errorf("%s with %s: %q: %v; want %s", c.kind, c.key, c.text, err, c.want)
			}
		}
	}
	k := resourcetest.Kind(t, Group(), "Deployment")
	d := workloads(t)["Deployment"].(*appsv1.Deployment)
	d.Annotations = map[string]string{appsv1.DeprecatedRollbackTo: ""}
	k.Default(d)
	if len(d.Annotations) != 0 {
		t.Errorf("an empty revision stays: %v", d.Annotations)
	}
	d.Annotations = map[string]string{appsv1.DeprecatedRollbackTo: "-1"}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), d), "spec.rollback.version: Invalid value: -1: must be greater than or equal to 0")
	d.Annotations = map[string]string{appsv1.DeprecatedRollbackTo: "x"}
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), d, d), `metadata.annotations[deprecated.deployment.rollback.to]: Invalid value: "x"`)
}

// TestRetiredAnnotations: no template carries what old kubelets would take for init containers.
func TestRetiredAnnotations(t *testing.T) {
	for _, kind := range []string{"DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"} {
		obj := workloads(t)[kind]
		template := reflect.ValueOf(obj).Elem().FieldByName("Spec").FieldByName("Template").Addr().Interface().(*corev1.PodTemplateSpec)
		template.Annotations = map[string]string{"pod.alpha.kubernetes.io/init-containers": "[]", "pod.beta.kubernetes.io/init-container-statuses": "[]", "a": "b"}
		resourcetest.Kind(t, Group(), kind).Default(obj)
		if len(template.Annotations) != 1 {
			t.Errorf("%s: annotations %v", kind, template.Annotations)
		}
	}
}

func TestRevision(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "ControllerRevision")
	r := &appsv1.ControllerRevision{Revision: -1}
	r.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "d", Controller: ptr.To(true)}}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), r), "revision: Invalid value: -1", "data: Required value: data is mandatory")
	names, cells := resourcetest.Cells(k, r)
	if names != "Controller|Revision|Age" || cells[0] != "daemonset.apps/d" || cells[1] != int64(-1) {
		t.Errorf("columns %s, cells %v", names, cells)
	}
	r.Revision, r.Data = 1, runtime.RawExtension{Raw: []byte(`[1]`)}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), r), "data: Required value: data must be a valid JSON object")
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), r, r))
	a, b := r.DeepCopy(), r.DeepCopy()
	a.Data, b.Data = runtime.RawExtension{Raw: []byte(`{"a":1}`)}, runtime.RawExtension{Raw: []byte(`{"a":2}`)}
	a.Revision, b.Revision = 1, 1
	if errs := k.ValidateUpdate(t.Context(), a, b); len(errs) != 1 || errs[0].Type != field.ErrorTypeInvalid || errs[0].Field != "data" {
		t.Errorf("changed data: %v", errs)
	}
}

func TestColumns(t *testing.T) {
	w := workloads(t)
	d := w["Deployment"].(*appsv1.Deployment)
	d.Status.ReadyReplicas = 1
	for kind, want := range map[string]string{
		"Deployment":  "Ready|Up-to-date|Available|Age|+Containers|+Images|+Selector",
		"ReplicaSet":  "Desired|Current|Ready|Age|+Containers|+Images|+Selector",
		"StatefulSet": "Ready|Age|+Containers|+Images",
		"DaemonSet":   "Desired|Current|Ready|Up-to-date|Available|Node Selector|Age|+Containers|+Images|+Selector",
	} {
		if names, _ := resourcetest.Cells(resourcetest.Kind(t, Group(), kind), w[kind]); names != want {
			t.Errorf("%s: columns %s, want %s", kind, names, want)
		}
	}
	_, cells := resourcetest.Cells(resourcetest.Kind(t, Group(), "Deployment"), d)
	if cells[0] != "1/1" || cells[3] != "c" || cells[4] != "busybox:1" || cells[5] != "app=a" {
		t.Errorf("deployment cells %v", cells)
	}
}
