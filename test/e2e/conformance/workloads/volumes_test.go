package workloads

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestEmptyDirs: the volume's own mode, files of root and of another user, on disk and in memory, shared by containers, held to a size.
func TestEmptyDirs(t *testing.T) {
	s := begin(t)
	for _, medium := range []corev1.StorageMedium{"", corev1.StorageMediumMemory} {
		name := "disk"
		if medium != "" {
			name = "memory"
		}
		source := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}
		s.equal(name+"'s mode", strings.TrimSpace(s.output(mounted(shell(name, "stat -c %A /v"), source))), "drwxrwxrwx")
		if medium != "" {
			s.contains("the file system", s.output(mounted(shell(name+"-fs", "stat -f -c %T /v; mount | grep ' /v '"), source)), "tmpfs")
		}
		for _, uid := range []int64{0, 1001} {
			for _, mode := range []string{"0644", "0666", "0777"} {
				p := mounted(shell(fmt.Sprintf("%s-%d-%s", name, uid, mode), "echo mount-tester >/v/f && chmod "+mode+" /v/f && stat -c '%a %u' /v/f && cat /v/f"), source)
				if uid != 0 {
					as(p, uid, 0)
				}
				s.equal(p.Name, s.output(p), fmt.Sprintf("%s %d\nmount-tester\n", strings.TrimPrefix(mode, "0"), uid))
			}
		}
	}
	shared := mounted(shell("shared", "until cat /v/f 2>/dev/null; do sleep 1; done"), corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
	shared.Spec.Containers = append(shared.Spec.Containers, corev1.Container{Name: "writer", Image: busybox, Command: []string{"sh", "-c", "echo hello >/v/f"}, VolumeMounts: shared.Spec.Containers[0].VolumeMounts})
	s.equal("what another container wrote", s.output(shared), "hello\n")
	sized := mounted(shell("sized", "df -m /v | tail -1 | awk '{print $2}'"), corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: resource.NewQuantity(10<<20, resource.BinarySI)}})
	s.equal("the size in memory", strings.TrimSpace(s.output(sized)), "10")
}

// TestSubpaths: of ConfigMap, Secret, projected and downward volumes, over a file that is there, by expressions, and what is refused.
func TestSubpaths(t *testing.T) {
	s := begin(t)
	s.configMap("cm", map[string]string{"file": "from-configmap"})
	s.secret("sec", map[string]string{"file": "from-secret"})
	name := corev1.LocalObjectReference{Name: "cm"}
	for what, source := range map[string]corev1.VolumeSource{
		"from-configmap": {ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: name}},
		"from-secret":    {Secret: &corev1.SecretVolumeSource{SecretName: "sec"}},
		"from-projected": {Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "file", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}}}}},
		"from-downward":  {DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "file", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
	} {
		p := mounted(shell(what, "cat /sub; cat /etc/group"), source)
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/sub", SubPath: "file"}, {Name: "v", MountPath: "/etc/group", SubPath: "file"}}
		s.equal(what, s.output(p), what+what)
	}
	for what, expression := range map[string]string{"good": "$(POD_NAME)", "backticks": "`id`", "absolute": "/$(POD_NAME)", "parent": "../$(POD_NAME)"} {
		p := mounted(shell(what, "test -d /v && echo hi >/sub/f; ls /v"), corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
		p.Spec.Containers[0].Env = []corev1.EnvVar{field("POD_NAME", "metadata.name"), {Name: "POD_NAME2", Value: expression}}
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "v", MountPath: "/sub", SubPathExpr: "$(POD_NAME2)"})
		if what == "good" {
			p.Spec.Containers[0].VolumeMounts[1].SubPathExpr = expression
			s.equal("an expression", s.output(p), "good\n")
			continue
		}
		if what == "backticks" { // upstream takes the name as it is
			s.create(p)
			s.until(what, "is a name like another, or refused", func(p *corev1.Pod) bool { return ended(p) || refused(p) })
			continue
		}
		s.create(p)
		s.until(what, "is refused", refused)
	}
	// A failing expression can be changed while the pod waits.
	p := mounted(shell("mended", "sleep 1000"), corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
	p.Annotations = map[string]string{"mysubpath": "mypath"}
	p.Spec.Containers[0].Env = []corev1.EnvVar{field("POD_NAME", "metadata.annotations['mysubpath']"), {Name: "ANNOTATION", Value: "x"}}
	p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "v", MountPath: "/sub", SubPathExpr: "$(POD_NAME)"})
	p.Annotations["mysubpath"] = "/absolute"
	s.create(p)
	s.until("mended", "waits", refused)
	_, err := s.client.CoreV1().Pods(s.ns).Patch(t.Context(), "mended", types.MergePatchType, []byte(`{"metadata":{"annotations":{"mysubpath":"mypath"}}}`), metav1.PatchOptions{})
	s.must(err)
	s.until("mended", "runs", ready)
}

// refused tells whether the first container cannot be made.
func refused(p *corev1.Pod) bool {
	if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Waiting == nil {
		return false
	}
	reason := p.Status.ContainerStatuses[0].State.Waiting.Reason
	return reason == "CreateContainerConfigError" || reason == "CreateContainerError"
}

// TestVolumeUpdates: changes of ConfigMap, Secret, labels and annotations reach the files; optional ones come and go; binary data arrives whole.
func TestVolumeUpdates(t *testing.T) {
	s := begin(t)
	s.configMap("cm", map[string]string{"data-1": "value-1"})
	s.configMap("leaves", map[string]string{"data-1": "value-1"})
	p := shell("watcher", "sleep 10000")
	p.Annotations = map[string]string{"builder": "bar"}
	optional := ptr(true)
	sources := map[string]corev1.VolumeSource{
		"cm": {ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}, "leaves": {ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "leaves"}, Optional: optional}},
		"comes":     {Secret: &corev1.SecretVolumeSource{SecretName: "comes", Optional: optional}},
		"projected": {Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}, {Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "comes"}, Items: []corev1.KeyToPath{{Key: "key", Path: "secret/key"}}, Optional: optional}}}}},
		"down":      {DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}, {Path: "annotations", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations"}}}}},
	}
	for name, source := range sources {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: name, MountPath: "/v/" + name})
	}
	s.run(p)
	shows := func(file, want string) {
		t.Helper()
		s.eventually(file, func() string {
			out, err := s.exec("watcher", "c", "cat", "/v/"+file)
			if !strings.Contains(out, want) || want == "" && err == nil {
				return fmt.Sprintf("%q, %v", out, err)
			}
			return ""
		})
	}
	shows("cm/data-1", "value-1")
	out, err := s.exec("watcher", "c", "sh", "-c", "od -An -tx1 /v/cm/dump.bin")
	s.must(err)
	s.equal("binary data", strings.TrimSpace(out), "de ca fe ba")
	shows("down/labels", "name=\"watcher\"")
	shows("down/annotations", "builder=\"bar\"")
	s.kubectl("patch", "configmap", "cm", "--type=merge", "-p", `{"data":{"data-1":"value-2"}}`)
	s.kubectl("delete", "configmap", "leaves")
	s.secret("comes", map[string]string{"key": "came"})
	s.kubectl("label", "pod", "watcher", "key3=value3")
	s.kubectl("annotate", "pod", "watcher", "--overwrite", "builder=foo")
	shows("cm/data-1", "value-2")
	shows("projected/data-1", "value-2")
	shows("leaves/data-1", "")
	shows("comes/key", "came")
	shows("projected/secret/key", "came")
	shows("down/labels", "key3=\"value3\"")
	shows("down/annotations", "builder=\"foo\"")

	for kind, change := range map[string]string{"configmap/cm": `{"data":{"data-1":"value-3"}}`, "secret/comes": `{"stringData":{"key":"else"}}`} {
		s.kubectl("patch", kind, "--type=merge", "-p", `{"immutable":true}`)
		for _, patch := range []string{change, `{"immutable":false}`, `{"immutable":null}`} {
			if _, errs, err := s.c.Kubectl(t.Context(), "-n", s.ns, "patch", kind, "--type=merge", "-p", patch); err == nil || !strings.Contains(errs, "immutable") {
				t.Errorf("%s %s: %v %s", kind, patch, err, errs)
			}
		}
		s.kubectl("label", kind, "may=change")
		s.kubectl("delete", kind)
	}
}

// TestInlineVolumes: a pod with a CSI volume of its own is created, patched, deleted, driver or not.
func TestInlineVolumes(t *testing.T) {
	s := begin(t)
	p := mounted(shell("inline", "true"), corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "e2e.example.com", FSType: ptr("nfs"), ReadOnly: ptr(true), VolumeAttributes: map[string]string{"a": "b"}}})
	s.create(p)
	patched, err := s.client.CoreV1().Pods(s.ns).Patch(t.Context(), "inline", types.MergePatchType, []byte(`{"metadata":{"labels":{"patched":"true"}}}`), metav1.PatchOptions{})
	s.must(err)
	s.equal("the driver", patched.Spec.Volumes[0].CSI.Driver, "e2e.example.com")
	s.must(s.client.CoreV1().Pods(s.ns).Delete(t.Context(), "inline", metav1.DeleteOptions{}))
	s.eventually("it goes", func() string {
		if _, err := s.client.CoreV1().Pods(s.ns).Get(t.Context(), "inline", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Sprint(err)
		}
		return ""
	})
}

// TestTaints: a pod that tolerates a NoExecute taint for a while is evicted when that is over, not if the taint goes before; the condition tells why.
func TestTaints(t *testing.T) {
	s := beginSerial(t) // the taint is of the one node that all specs share: a key that every pod of theirs would have to tolerate
	taint := "kubernetes.io/conformance-" + s.ns
	tolerant := func(name string, seconds int64) {
		p := program(name, "pause")
		p.Finalizers = []string{"conformance.example/held"}
		p.Spec.Tolerations = []corev1.Toleration{{Key: taint, Value: "evict", Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds}}
		s.run(p)
	}
	tolerant("short", 3)
	tolerant("long", 600)
	s.kubectl("taint", "node", s.c.NodeName, taint+"=evict:NoExecute")
	defer func() {
		if s.Failed() {
			_, _, _ = s.c.Kubectl(s.T.Context(), "taint", "node", s.c.NodeName, taint+"-")
		}
	}()
	p := s.until("short", "is evicted", func(p *corev1.Pod) bool {
		return p.DeletionTimestamp != nil && condition(p, corev1.DisruptionTarget) != nil
	})
	s.equal("why", condition(p, corev1.DisruptionTarget).Reason, "DeletionByTaintManager")
	if at := p.DeletionTimestamp.Sub(p.CreationTimestamp.Time); at < 3*time.Second {
		t.Errorf("evicted after %s, before the toleration was over", at)
	}
	s.kubectl("taint", "node", s.c.NodeName, taint+"-")
	if l := s.pod("long"); l.DeletionTimestamp != nil {
		t.Errorf("the pod that tolerates the taint for longer is gone: %+v", l.Status)
	}
	for _, name := range []string{"short", "long"} {
		s.kubectl("patch", "pod", name, "--type=json", "-p", `[{"op":"remove","path":"/metadata/finalizers"}]`)
	}
}
