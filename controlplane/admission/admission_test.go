package admission

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/component-base/metrics/testutil"
	"k8s.io/utils/ptr"
)

var alice = &user.DefaultInfo{Name: "alice", Groups: []string{user.AllAuthenticated}}

// chain is the whole of admission over a cluster with the given objects, and the client that reads them.
func chain(t *testing.T, authz authorizer.Authorizer, objects ...runtime.Object) (admission.Interface, *fake.Clientset) {
	t.Helper()
	objects = append(objects,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "ns"}})
	client := fake.NewClientset(objects...)
	d := deps(t, client)
	if authz != nil {
		d.Authorizer = authz
	}
	c, err := New(d)
	if err != nil {
		t.Fatal(err)
	}
	d.Informers.Start(d.Stop)
	return c, client
}

func deps(t *testing.T, client kubernetes.Interface) Deps {
	stop := make(chan struct{})
	f := informers.NewSharedInformerFactory(client, 0)
	t.Cleanup(func() {
		close(stop)
		f.Shutdown()
	})
	return Deps{Client: client, Informers: f, Authorizer: authorizerfactory.NewAlwaysDenyAuthorizer(), Stop: stop}
}

// write is one request.
type write struct {
	op       admission.Operation
	resource string // "pods", "nodes", "networking.k8s.io/ingresses"
	sub      string
	obj, old runtime.Object
	as       user.Info
}

func (w write) attributes() admission.Attributes {
	group, resource, ok := strings.Cut(w.resource, "/")
	if !ok {
		group, resource = "", w.resource
	}
	namespace, name := "", ""
	for _, o := range []runtime.Object{w.obj, w.old} {
		if m, err := meta.Accessor(o); o != nil && err == nil {
			namespace, name = m.GetNamespace(), m.GetName()
			break
		}
	}
	if w.op == "" {
		w.op = admission.Create
	}
	if w.as == nil {
		w.as = alice
	}
	return admission.NewAttributesRecord(w.obj, w.old, schema.GroupVersionKind{Group: group, Version: "v1"}, namespace, name,
		schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource}, w.sub, w.op, nil, false, w.as)
}

// admit runs a request through both phases.
func admit(t *testing.T, c admission.Interface, w write) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a := w.attributes()
	if m, ok := c.(admission.MutationInterface); ok && c.Handles(a.GetOperation()) {
		if err := m.Admit(ctx, a, nil); err != nil {
			return err
		}
	}
	if v, ok := c.(admission.ValidationInterface); ok && c.Handles(a.GetOperation()) {
		return v.Validate(ctx, a, nil)
	}
	return nil
}

func refused(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("got %v, want a refusal with %q", err, want)
	}
}

func newPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

func TestPodGetsWhatTheClusterDecides(t *testing.T) {
	c, _ := chain(t, nil)
	pod := newPod()
	pod.Spec.InitContainers = []corev1.Container{{Name: "init", VolumeMounts: []corev1.VolumeMount{{Name: "own", MountPath: tokenPath}}}}
	if err := admit(t, c, write{resource: "pods", obj: pod}); err != nil {
		t.Fatal(err)
	}
	s := pod.Spec
	if s.ServiceAccountName != "default" || s.DeprecatedServiceAccount != "default" {
		t.Errorf("service account %q, %q", s.ServiceAccountName, s.DeprecatedServiceAccount)
	}
	if *s.Priority != 0 || *s.PreemptionPolicy != corev1.PreemptLowerPriority || s.PriorityClassName != "" {
		t.Errorf("priority %d %s %q", *s.Priority, *s.PreemptionPolicy, s.PriorityClassName)
	}
	if len(s.Tolerations) != 2 || *s.Tolerations[0].TolerationSeconds != 300 {
		t.Errorf("tolerations %v", s.Tolerations)
	}
	if len(s.Volumes) != 1 || !strings.HasPrefix(s.Volumes[0].Name, "kube-api-access-") {
		t.Fatalf("volumes %v", s.Volumes)
	}
	sources := s.Volumes[0].Projected.Sources
	if len(sources) != 3 || *sources[0].ServiceAccountToken.ExpirationSeconds != 3607 || sources[1].ConfigMap.Name != "kube-root-ca.crt" ||
		sources[2].DownwardAPI.Items[0].FieldRef.FieldPath != "metadata.namespace" {
		t.Errorf("sources %+v", sources)
	}
	if m := s.Containers[0].VolumeMounts; len(m) != 1 || m[0].MountPath != tokenPath || !m[0].ReadOnly || m[0].Name != s.Volumes[0].Name {
		t.Errorf("container mounts %v", m)
	}
	if m := s.InitContainers[0].VolumeMounts; len(m) != 1 || m[0].Name != "own" {
		t.Errorf("a mount of the user's own was touched: %v", m)
	}
}

func TestServiceAccount(t *testing.T) {
	secret := func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}}}
	}
	c, _ := chain(t, nil,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "pulls", Namespace: "ns"}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "reg"}},
			AutomountServiceAccountToken: ptr.To(false)},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "strict", Namespace: "ns", Annotations: map[string]string{mountableAnnotation: "T"}}})
	env := []corev1.EnvVar{{Name: "E", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}}}
	const unlisted = ` secret.secretName="s" is not allowed because service account strict does not reference that secret`
	strict := func(change func(*corev1.PodSpec)) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.ServiceAccountName = "strict"
			change(&p.Spec)
		}
	}
	for name, edit := range map[string]struct {
		change func(*corev1.Pod)
		want   string
	}{
		"unknown account":           {func(p *corev1.Pod) { p.Spec.ServiceAccountName = "nobody" }, `error looking up service account ns/nobody: serviceaccount "nobody" not found`},
		"unlisted secret":           {func(p *corev1.Pod) { p.Spec.ServiceAccountName = "strict"; secret(p) }, "volume with" + unlisted},
		"secret in the environment": {strict(func(s *corev1.PodSpec) { s.Containers[0].Env = env }), "container c with envVar E referencing" + unlisted},
		"secret in an init container's": {strict(func(s *corev1.PodSpec) {
			s.InitContainers = []corev1.Container{{Name: "i", EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}}}}
		}), "init container i with envFrom referencing" + unlisted},
		"unlisted pull secret": {strict(func(s *corev1.PodSpec) { s.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}} }),
			`imagePullSecrets[0].name="s" is not allowed because service account strict does not reference that imagePullSecret`},
		"any secret": {secret, ""},
		"mirror with account": {func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
			p.Spec.ServiceAccountName = "default"
		}, "a mirror pod may not reference service accounts"},
		"mirror with secret": {func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
			secret(p)
		}, "a mirror pod may not reference secrets"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPod()
			edit.change(p)
			refused(t, admit(t, c, write{resource: "pods", obj: p}), edit.want)
		})
	}
	p := newPod()
	p.Spec.ServiceAccountName = "pulls"
	if err := admit(t, c, write{resource: "pods", obj: p}); err != nil {
		t.Fatal(err)
	}
	if len(p.Spec.Volumes) != 0 || len(p.Spec.ImagePullSecrets) != 1 || p.Spec.ImagePullSecrets[0].Name != "reg" {
		t.Errorf("volumes %v, pull secrets %v", p.Spec.Volumes, p.Spec.ImagePullSecrets)
	}
	p = newPod() // copied from one that ran
	p.Spec.Volumes = []corev1.Volume{{Name: "kube-api-access-x"}}
	if err := admit(t, c, write{resource: "pods", obj: p}); err != nil || len(p.Spec.Volumes) != 1 || p.Spec.Containers[0].VolumeMounts[0].Name != "kube-api-access-x" {
		t.Errorf("%v: volumes %v, mounts %v", err, p.Spec.Volumes, p.Spec.Containers[0].VolumeMounts)
	}
	p.Spec.ServiceAccountName = ""
	refused(t, admit(t, c, write{op: admission.Update, resource: "pods", sub: "ephemeralcontainers", obj: p, old: p}), "no service account specified for pod ns/p")
	p.Spec.ServiceAccountName = "strict"
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Env: env}}}
	refused(t, admit(t, c, write{op: admission.Update, resource: "pods", sub: "ephemeralcontainers", obj: p, old: p}), "ephemeral container e with envVar E referencing"+unlisted)
}

// The default account of a namespace just made comes a moment later: the pod waits for it.
func TestPodWaitsForDefaultAccount(t *testing.T) {
	client := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
	c := newCluster(deps(t, client))
	watched := make(chan struct{})
	client.PrependWatchReactor("serviceaccounts", announce(watched))
	made := make(chan error, 1)
	go func() {
		<-watched
		_, err := client.CoreV1().ServiceAccounts("ns").Create(context.Background(),
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "ns"}}, metav1.CreateOptions{})
		made <- err
	}()
	account, err := c.account(t.Context(), "ns", "default")
	if err != nil || account.Name != "default" {
		t.Errorf("got %v, %v", account, err)
	}
	if err := <-made; err != nil {
		t.Error(err)
	}
}

func TestPriority(t *testing.T) {
	c, _ := chain(t, nil,
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 7, PreemptionPolicy: ptr.To(corev1.PreemptNever)},
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "usual"}, Value: 3, GlobalDefault: true})
	for _, tc := range []struct {
		class    string
		given    *int32
		priority int32
		want     string
	}{
		{"high", nil, 7, ""},
		{"", nil, 3, ""},
		{"system-node-critical", nil, 2000001000, ""},
		{"none", nil, 0, "no PriorityClass with name none was found"},
		{"/x", nil, 0, "no PriorityClass with name /x was found"},
		{"high", ptr.To[int32](9), 0, "the integer value of priority (9) must not be provided in pod spec; priority admission controller computed 7 from the given PriorityClass name"},
	} {
		p := newPod()
		p.Spec.PriorityClassName, p.Spec.Priority = tc.class, tc.given
		err := admit(t, c, write{resource: "pods", obj: p})
		refused(t, err, tc.want)
		if err == nil && *p.Spec.Priority != tc.priority {
			t.Errorf("class %q: priority %d, want %d", tc.class, *p.Spec.Priority, tc.priority)
		}
	}
	second := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "other"}, GlobalDefault: true}
	refused(t, admit(t, c, write{resource: "scheduling.k8s.io/priorityclasses", obj: second}),
		"PriorityClass usual is already marked as default. Only one default can exist")
}

func TestLimitRange(t *testing.T) {
	q := apiresource.MustParse
	c, _ := chain(t, nil, &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "l", Namespace: "ns"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
		{Type: corev1.LimitTypeContainer,
			Default:        corev1.ResourceList{"cpu": q("500m"), "memory": q("64Mi")},
			DefaultRequest: corev1.ResourceList{"cpu": q("100m"), "memory": q("64Mi")},
			Min:            corev1.ResourceList{"cpu": q("50m")},
			Max:            corev1.ResourceList{"cpu": q("1")}},
		{Type: corev1.LimitTypePod, Max: corev1.ResourceList{"memory": q("128Mi")}},
		{Type: corev1.LimitTypePersistentVolumeClaim, Max: corev1.ResourceList{"storage": q("1Gi")}},
	}}})
	p := newPod()
	if err := admit(t, c, write{resource: "pods", obj: p}); err != nil {
		t.Fatal(err)
	}
	r := p.Spec.Containers[0].Resources
	if r.Requests.Cpu().String() != "100m" || r.Requests.Memory().String() != "64Mi" || r.Limits.Cpu().String() != "500m" {
		t.Errorf("resources %v", r)
	}
	if want := "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"; p.Annotations[limitsAnnotation] != want {
		t.Errorf("annotation %q, want %q", p.Annotations[limitsAnnotation], want)
	}
	big := newPod()
	big.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"cpu": q("2")}
	refused(t, admit(t, c, write{resource: "pods", obj: big}), "maximum cpu usage per Container is 1, but limit is 2")
	small := newPod()
	small.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": q("10m")}
	refused(t, admit(t, c, write{resource: "pods", obj: small}), "minimum cpu usage per Container is 50m, but request is 10m")
	heavy := newPod()
	heavy.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"memory": q("256Mi")}
	refused(t, admit(t, c, write{resource: "pods", obj: heavy}), "maximum memory usage per Pod is 128Mi, but limit is 256Mi")
	if err := podWithin(&corev1.Pod{Spec: corev1.PodSpec{Containers: p.Spec.Containers, Overhead: corev1.ResourceList{"memory": q("1Gi")}}},
		&corev1.LimitRange{Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypePod, Max: corev1.ResourceList{"memory": q("128Mi")}}}}}); err != nil {
		t.Errorf("a pod's overhead is bounded: %v", err)
	}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "ns"}}
	claim.Spec.Resources.Requests = corev1.ResourceList{"storage": q("2Gi")}
	refused(t, admit(t, c, write{resource: "persistentvolumeclaims", obj: claim}), "maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi")
}

func TestStorage(t *testing.T) {
	isDefault := map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}
	c, _ := chain(t, nil,
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "old", Annotations: isDefault, CreationTimestamp: metav1.Unix(1, 0)}},
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "new", Annotations: isDefault, CreationTimestamp: metav1.Unix(2, 0)}, AllowVolumeExpansion: ptr.To(true)},
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fixed"}})
	claim := func(class *string, size string) *corev1.PersistentVolumeClaim {
		p := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "ns"}}
		p.Spec.StorageClassName = class
		p.Spec.Resources.Requests = corev1.ResourceList{"storage": apiresource.MustParse(size)}
		p.Status.Phase = corev1.ClaimBound
		return p
	}
	p := claim(nil, "1Gi")
	if err := admit(t, c, write{resource: "persistentvolumeclaims", obj: p}); err != nil {
		t.Fatal(err)
	}
	if *p.Spec.StorageClassName != "new" || len(p.Finalizers) != 1 || p.Finalizers[0] != "kubernetes.io/pvc-protection" {
		t.Errorf("class %s, finalizers %v", *p.Spec.StorageClassName, p.Finalizers)
	}
	none := claim(ptr.To(""), "1Gi")
	if err := admit(t, c, write{resource: "persistentvolumeclaims", obj: none}); err != nil || *none.Spec.StorageClassName != "" {
		t.Errorf("a claim for no class got %q, %v", *none.Spec.StorageClassName, err)
	}
	grow := func(class string) error {
		return admit(t, c, write{op: admission.Update, resource: "persistentvolumeclaims", obj: claim(&class, "2Gi"), old: claim(&class, "1Gi")})
	}
	refused(t, grow("new"), "")
	refused(t, grow("fixed"), "the storageclass that provisions the pvc must support resize")
}

func TestClasses(t *testing.T) {
	c, _ := chain(t, nil,
		&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "vm"}, Handler: "vm",
			Overhead:   &nodev1.Overhead{PodFixed: corev1.ResourceList{"memory": apiresource.MustParse("64Mi")}},
			Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"vm": "yes"}, Tolerations: []corev1.Toleration{{Key: "vm", Operator: corev1.TolerationOpExists}}}},
		&networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "z", "x": "y"}}})
	p := newPod()
	p.Spec.RuntimeClassName = ptr.To("vm")
	p.Spec.Tolerations = []corev1.Toleration{{Key: "vm", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}, {Key: "x", Operator: corev1.TolerationOpExists}}
	if err := admit(t, c, write{resource: "pods", obj: p}); err != nil {
		t.Fatal(err)
	}
	if p.Spec.Overhead.Memory().String() != "64Mi" || p.Spec.NodeSelector["vm"] != "yes" {
		t.Errorf("overhead %v, selector %v", p.Spec.Overhead, p.Spec.NodeSelector)
	}
	if got := p.Spec.Tolerations; len(got) != 4 || slices.ContainsFunc(got, func(t corev1.Toleration) bool { return t.Key == "vm" && t.Effect != "" }) {
		t.Errorf("the class's toleration covers the pod's, but: %v", got)
	}
	p = newPod()
	p.Spec.NodeName, p.Labels = "n", map[string]string{corev1.LabelTopologyZone: "other"}
	if err := admit(t, c, write{resource: "pods", obj: p}); err != nil || p.Labels[corev1.LabelTopologyZone] != "z" {
		t.Errorf("labels of a pod that comes with its node: %v, %v", p.Labels, err)
	}
	p = newPod()
	p.Spec.RuntimeClassName = ptr.To("none")
	refused(t, admit(t, c, write{resource: "pods", obj: p}), `pod rejected: RuntimeClass "none" not found`)
	p = newPod()
	p.Spec.Overhead = corev1.ResourceList{"memory": apiresource.MustParse("1Mi")}
	refused(t, admit(t, c, write{resource: "pods", obj: p}), "Pod Overhead set without corresponding RuntimeClass")

	i := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "i", Namespace: "ns"}}
	if err := admit(t, c, write{resource: "networking.k8s.io/ingresses", obj: i}); err != nil || ptr.Deref(i.Spec.IngressClassName, "") != "web" {
		t.Errorf("ingress class %v, %v", i.Spec.IngressClassName, err)
	}
	i = &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "i", Namespace: "ns", Annotations: map[string]string{ingressAnnotation: ""}}}
	if err := admit(t, c, write{resource: "networking.k8s.io/ingresses", obj: i}); err != nil || i.Spec.IngressClassName != nil {
		t.Errorf("an ingress with the old annotation got the class %v, %v", i.Spec.IngressClassName, err)
	}
	b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	if err := admit(t, c, write{resource: "pods", sub: "binding", obj: b}); err != nil || len(b.Labels) != 1 || b.Labels[corev1.LabelTopologyZone] != "z" {
		t.Errorf("binding labels %v, %v", b.Labels, err)
	}
}

func TestPodSecurity(t *testing.T) {
	c, _ := chain(t, nil,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tight", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "tight"}})
	p := newPod()
	p.Spec.HostNetwork = true
	refused(t, admit(t, c, write{resource: "pods", obj: p}), "")
	p = newPod()
	p.Namespace, p.Spec.HostNetwork = "tight", true
	denied := map[string]string{"decision": "deny", "policy_level": "baseline", "policy_version": "latest", "mode": "enforce",
		"request_operation": "create", "resource": "pod", "subresource": ""}
	before := counted(t, "pod_security_evaluations_total", denied)
	refused(t, admit(t, c, write{resource: "pods", obj: p}), `violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)`)
	if n := counted(t, "pod_security_evaluations_total", denied); n != before+1 {
		t.Errorf("%v refusals are counted, %v before", n, before)
	}
}

// counted is the value of a counter, 0 if it has not counted yet.
func counted(t *testing.T, name string, labels map[string]string) float64 {
	t.Helper()
	n, err := testutil.GetCounterValuesFromGatherer(legacyregistry.DefaultGatherer, name, labels, "decision")
	if err != nil {
		t.Fatal(err)
	}
	return n[labels["decision"]]
}

func TestQuota(t *testing.T) {
	hard := corev1.ResourceList{"pods": apiresource.MustParse("1")}
	c, client := chain(t, nil, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q", Namespace: "ns", ResourceVersion: "1"},
		Spec:   corev1.ResourceQuotaSpec{Hard: hard},
		Status: corev1.ResourceQuotaStatus{Hard: hard, Used: corev1.ResourceList{"pods": apiresource.MustParse("0")}}})
	refused(t, admit(t, c, write{resource: "pods", obj: newPod()}), "")
	q, err := client.CoreV1().ResourceQuotas("ns").Get(t.Context(), "q", metav1.GetOptions{})
	if err != nil || q.Status.Used.Pods().Value() != 1 {
		t.Errorf("quota after one pod: %v, %v", q, err)
	}
	full := q.DeepCopy()
	full.Status.Used = hard
	c, _ = chain(t, nil, full)
	refused(t, admit(t, c, write{resource: "pods", obj: newPod()}), "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1")
}

func TestNamespaceLifecycle(t *testing.T) {
	c, _ := chain(t, nil, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "going"}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}})
	in := func(ns string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m", Namespace: ns}}
	}
	refused(t, admit(t, c, write{resource: "configmaps", obj: in("ns")}), "")
	refused(t, admit(t, c, write{resource: "configmaps", obj: in("nowhere")}), `namespaces "nowhere" not found`)
	refused(t, admit(t, c, write{resource: "configmaps", obj: in("going")}), "unable to create new content in namespace going because it is being terminated")
}

// The server's own first writes must not wait for informers that only they can bring to life.
func TestBootstrapDoesNotWait(t *testing.T) {
	client := fake.NewClientset()
	c, err := New(deps(t, client)) // informers are never started
	if err != nil {
		t.Fatal(err)
	}
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m", Namespace: "kube-system"}}
	self := &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup}}
	refused(t, admit(t, c, write{resource: "configmaps", obj: m, as: self}), "")
}
