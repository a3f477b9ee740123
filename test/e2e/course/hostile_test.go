package course

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// sleeper is a pod of one container; fields are the container's, in YAML's flow style, and end with a comma.
func sleeper(name, spec, fields string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec: {terminationGracePeriodSeconds: 1, " + spec +
		`containers: [{name: c, image: "busybox:1.28", ` + fields + " command: [sleep, \"3600\"]}]}\n---\n"
}

// refused applies what the API must not take and returns what it said.
func (s *class) refused(manifest string) string {
	s.t.Helper()
	out, errs, err := s.c.KubectlIn(s.t.Context(), strings.NewReader(manifest), "-n", s.ns, "apply", "-f", "-")
	if err == nil {
		s.t.Fatalf("the API took it: %s", out)
	}
	return errs
}

// waiting waits until a pod's container waits for a reason, and returns the message.
func (s *class) waiting(pod, reason string) string {
	s.t.Helper()
	message := ""
	s.until(pod, "it waits for "+reason, func(p *corev1.Pod) string {
		for _, c := range p.Status.ContainerStatuses {
			if w := c.State.Waiting; w != nil && w.Reason == reason {
				message = w.Message
				return ""
			}
		}
		return fmt.Sprintf("%s %+v", p.Status.Phase, p.Status.ContainerStatuses)
	})
	return message
}

// PS11: the second pod with the same host port finds no node, and the kubelet refuses it where the scheduler was not
// asked; another protocol or another address of the host is another port.
func TestHostile_PS11(t *testing.T) {
	t.Parallel()
	s := attend(t)
	port := func(more string) string {
		return "ports: [{containerPort: 80, hostPort: 31911, " + more + "}],"
	}
	s.apply(sleeper("first", "", port("protocol: TCP, hostIP: 127.0.0.1")))
	s.until("first", "the first is ready", isReady)
	s.apply(sleeper("datagrams", "", port("protocol: UDP")) + sleeper("elsewhere", "", port("hostIP: "+s.c.NodeIP)) +
		sleeper("second", "", port("protocol: TCP")) + sleeper("forced", "nodeName: "+s.c.NodeName+", ", port("hostIP: 127.0.0.1")))
	s.until("datagrams", "another protocol is ready", isReady)
	s.until("elsewhere", "another address is ready", isReady)
	s.until("second", "the second is told why it waits", func(p *corev1.Pod) string {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable && strings.Contains(c.Message, "free ports") {
				return ""
			}
		}
		return fmt.Sprintf("%+v", p.Status)
	})
	s.until("forced", "the one past the scheduler has failed", func(p *corev1.Pod) string {
		if p.Status.Phase == corev1.PodFailed && p.Status.Reason == "NodePorts" {
			return ""
		}
		return fmt.Sprintf("%+v", p.Status)
	})
	s.kubectl("delete", "pod", "first", "elsewhere")
	s.until("second", "the second gets the port when it is free", func(p *corev1.Pod) string {
		if p.Spec.NodeName == "" {
			return "not bound"
		}
		return isReady(p)
	})
}

// PS13: an environment larger than the kernel takes is told in the kernel's words; a pod of a hundred containers and
// fifty init containers with ten thousand ports works.
func TestHostile_PS13(t *testing.T) {
	t.Parallel()
	s := attend(t)
	big := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "big"}}
	big.Spec.Containers = []corev1.Container{{Name: "c", Image: "busybox:1.28", Command: []string{"true"}, Env: []corev1.EnvVar{{Name: "BIG", Value: strings.Repeat("x", 1<<20)}}}}
	if _, err := s.client.CoreV1().Pods(s.ns).Create(t.Context(), big, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	seen := ""
	s.until("big", "the kernel's refusal is told", func(p *corev1.Pod) string {
		for _, c := range p.Status.ContainerStatuses {
			for _, state := range []corev1.ContainerState{c.State, c.LastTerminationState} {
				if w := state.Waiting; w != nil {
					seen += w.Reason + ": " + w.Message + "\n"
				}
				if e := state.Terminated; e != nil {
					seen += e.Reason + ": " + e.Message + "\n"
				}
			}
		}
		if strings.Contains(strings.ToLower(seen), "argument list too long") {
			return ""
		}
		return fmt.Sprintf("%s %+v", p.Status.Phase, p.Status.ContainerStatuses)
	})

	many := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "many"}, Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever}}
	for i := range 50 {
		many.Spec.InitContainers = append(many.Spec.InitContainers, corev1.Container{Name: fmt.Sprintf("i%d", i), Image: "busybox:1.28", Command: []string{"true"}})
	}
	for i := range 100 {
		c := corev1.Container{Name: fmt.Sprintf("c%d", i), Image: "busybox:1.28", Command: []string{"true"}}
		for p := range 100 {
			c.Ports = append(c.Ports, corev1.ContainerPort{ContainerPort: int32(1 + 100*i + p)})
		}
		many.Spec.Containers = append(many.Spec.Containers, c)
	}
	if _, err := s.client.CoreV1().Pods(s.ns).Create(t.Context(), many, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.until("many", "all of them have run", func(p *corev1.Pod) string {
		if p.Status.Phase == corev1.PodSucceeded {
			return ""
		}
		done := 0
		for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if c.State.Terminated != nil {
				done++
			}
		}
		return fmt.Sprintf("%s, %d have ended", p.Status.Phase, done)
	})
}

// PS14: an exec probe that never returns, one that prints without end and one that leaves daemons behind: each costs its
// container at most a restart, nothing of them stays, and other pods are probed on time.
func TestHostile_PS14(t *testing.T) {
	t.Parallel()
	s := attend(t)
	probe := func(kind, script string) string {
		return kind + `: {exec: {command: [sh, -c, "` + script + `"]}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 2},`
	}
	s.apply(sleeper("stuck", "", probe("livenessProbe", "sleep 7201 & sleep 7202")) +
		sleeper("loud", "", probe("readinessProbe", "yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")) +
		sleeper("demons", "", probe("readinessProbe", "(setsid sleep 7203 &) ; true")) +
		sleeper("calm", "", probe("readinessProbe", "true")))
	s.until("calm", "the well-behaved one is ready", isReady)
	s.until("stuck", "the stuck one is restarted", func(p *corev1.Pod) string {
		if len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount > 0 {
			return ""
		}
		return fmt.Sprintf("%+v", p.Status.ContainerStatuses)
	})
	s.eventually("its events say so", func() string {
		out := s.kubectl("get", "events", "--field-selector", "involvedObject.name=stuck", "-o", "jsonpath={.items[*].message}")
		if strings.Contains(out, "timed out") {
			return ""
		}
		return out
	})
	s.eventually("nothing that a timed-out probe began is left", func() string {
		out := s.kubectl("exec", "stuck", "--", "ps", "-o", "args")
		if n := strings.Count(out, "sleep 720"); n > 2 { // one probe may be under way
			return out
		}
		return ""
	})
	if p := s.pod("loud"); ready(p) || p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the loud one: %+v", p.Status.ContainerStatuses)
	}
	if p := s.pod("calm"); !ready(p) {
		t.Errorf("the well-behaved one suffers: %+v", p.Status.ContainerStatuses)
	}
	s.kubectl("delete", "pod", "stuck", "loud", "demons")
}

// PS17: a RuntimeClass that is not there is refused; one that goes away, or names a handler that the runtime lacks, keeps
// the pod from starting and says why.
func TestHostile_PS17(t *testing.T) {
	t.Parallel()
	s := attend(t)
	if said := s.refused(sleeper("none", "runtimeClassName: "+s.ns+"-none, ", "")); !strings.Contains(said, "not found") {
		t.Errorf("the refusal says %q", said)
	}
	class := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: s.ns + "-odd"}, Handler: "no-such-handler"}
	if _, err := s.client.NodeV1().RuntimeClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.eventually("the class is known", func() string {
		_, errs, err := s.c.KubectlIn(t.Context(), strings.NewReader(sleeper("odd", "runtimeClassName: "+class.Name+", ", "")), "-n", s.ns, "apply", "-f", "-")
		if err != nil {
			return errs
		}
		return ""
	})
	failed := func(why string) func() string {
		return func() string {
			out := s.kubectl("get", "events", "--field-selector", "involvedObject.name=odd,reason=FailedCreatePodSandBox", "-o", "jsonpath={.items[*].message}")
			if strings.Contains(out, why) {
				return ""
			}
			return out
		}
	}
	s.eventually("the missing handler is told", failed("no-such-handler"))
	if err := s.client.NodeV1().RuntimeClasses().Delete(t.Context(), class.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.eventually("the missing class is told", failed(class.Name))
	s.kubectl("delete", "pod", "odd")
}

// PS19: a Secret's bytes reach the environment as they are, and a status may name a user beyond 2^31.
func TestHostile_PS19(t *testing.T) {
	t.Parallel()
	s := attend(t)
	value := []byte{'a', 0xff, 0xfe, 0x80, '\n', 'z'}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "raw"}, Data: map[string][]byte{"RAW": value, "odd.name": value}}
	if _, err := s.client.CoreV1().Secrets(s.ns).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.apply(sleeper("raw", "", `envFrom: [{secretRef: {name: raw}}], readinessProbe: {exec: {command: ["true"]}},`))
	s.until("raw", "the pod is ready", isReady)
	got := s.kubectl("exec", "raw", "--", "sh", "-c", `printf %s "$RAW" | od -An -tx1`)
	if want := "61 ff fe 80 0a 7a"; strings.Join(strings.Fields(got), " ") != want {
		t.Errorf("the container has %q, want %s", got, want)
	}
	p := s.pod("raw")
	if u := p.Status.ContainerStatuses[0].User; u == nil || u.Linux == nil || u.Linux.UID != 0 {
		t.Errorf("user in the status: %+v", u)
	}
	lone := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "lone"}, Spec: corev1.PodSpec{NodeSelector: map[string]string{"no": "node"},
		Containers: []corev1.Container{{Name: "c", Image: "busybox:1.28"}}}}
	if _, err := s.client.CoreV1().Pods(s.ns).Create(t.Context(), lone, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const high = int64(1)<<31 + 5
	patch := fmt.Sprintf(`{"status":{"containerStatuses":[{"name":"c","image":"","imageID":"","ready":false,"restartCount":0,"user":{"linux":{"uid":%d,"gid":7,"supplementalGroups":[7]}}}]}}`, high)
	made, err := s.client.CoreV1().Pods(s.ns).Patch(t.Context(), "lone", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	if err != nil || made.Status.ContainerStatuses[0].User.Linux.UID != high {
		t.Errorf("a status with user %d: %v %+v", high, err, made.Status)
	}
}

// PS26, PS27: an account that may mount only the secrets that it lists is not got round by envFrom, nor by an ephemeral
// container; Pod Security judges ephemeral containers too.
func TestHostile_PS26_PS27(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: ServiceAccount
metadata: {name: strict, annotations: {kubernetes.io/enforce-mountable-secrets: "true"}}
secrets: [{name: mine}]
---
apiVersion: v1
kind: Secret
metadata: {name: mine}
stringData: {K: v}
---
apiVersion: v1
kind: Secret
metadata: {name: foreign}
stringData: {K: v}
---
` + sleeper("good", "serviceAccountName: strict, ", "envFrom: [{secretRef: {name: mine}}],"))
	for what, field := range map[string]string{
		"envFrom": "envFrom: [{secretRef: {name: foreign}}],",
		"env":     "env: [{name: A, valueFrom: {secretKeyRef: {name: foreign, key: K}}}],",
	} {
		if said := s.refused(sleeper("bad", "serviceAccountName: strict, ", field)); !strings.Contains(said, "does not reference that secret") {
			t.Errorf("%s: %s", what, said)
		}
	}
	s.until("good", "the pod is ready", isReady)
	debug := func(e corev1.EphemeralContainerCommon) error {
		p := s.pod("good")
		e.Name, e.Image = fmt.Sprintf("e%d", len(p.Spec.EphemeralContainers)), "busybox:1.28"
		p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: e})
		_, err := s.client.CoreV1().Pods(s.ns).UpdateEphemeralContainers(t.Context(), "good", p, metav1.UpdateOptions{})
		return err
	}
	foreign := corev1.LocalObjectReference{Name: "foreign"}
	if err := debug(corev1.EphemeralContainerCommon{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: foreign}}}}); err == nil || !strings.Contains(err.Error(), "does not reference that secret") {
		t.Errorf("an ephemeral container with another's secret: %v", err)
	}
	s.kubectl("label", "namespace", s.ns, "pod-security.kubernetes.io/enforce=baseline")
	yes := true
	s.eventually("Pod Security judges ephemeral containers", func() string {
		err := debug(corev1.EphemeralContainerCommon{SecurityContext: &corev1.SecurityContext{Privileged: &yes}})
		if err == nil {
			return "the API took a privileged one"
		}
		if !strings.Contains(err.Error(), "violates PodSecurity") {
			return err.Error()
		}
		return ""
	})
	if err := debug(corev1.EphemeralContainerCommon{Command: []string{"true"}, Env: []corev1.EnvVar{{Name: "A", Value: "b"}}}); err != nil {
		t.Errorf("a harmless ephemeral container: %v", err)
	}
}

// PS20: an optional ConfigMap, and an optional key, reach the pod's files when they appear; what is immutable stays as it is.
func TestHostile_PS20(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "busybox:1.28", command: [sleep, "3600"], volumeMounts: [{name: late, mountPath: /late}, {name: hidden, mountPath: /hidden}]}]
  volumes:
  - {name: late, configMap: {name: late, optional: true}}
  - {name: hidden, secret: {secretName: hidden, optional: true, items: [{key: k, path: k}]}}
`)
	s.until("reader", "ready without them", isReady)
	if out := s.kubectl("exec", "reader", "--", "ls", "/late", "/hidden"); strings.Contains(out, "k") {
		t.Errorf("before they are there: %s", out)
	}
	s.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: late}\nimmutable: true\ndata: {k: appeared}\n---\n" +
		"apiVersion: v1\nkind: Secret\nmetadata: {name: hidden}\nimmutable: true\nstringData: {k: seen}\n")
	s.eventually("they reach the files", func() string {
		out, errs, err := s.c.Kubectl(t.Context(), "-n", s.ns, "exec", "reader", "--", "cat", "/late/k", "/hidden/k")
		if err != nil || out != "appearedseen" {
			return out + errs
		}
		return ""
	})
	for _, manifest := range []string{
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: late}\nimmutable: true\ndata: {k: changed}\n",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: late}\nimmutable: false\ndata: {k: appeared}\n",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: hidden}\nimmutable: true\nstringData: {k: changed}\n",
	} {
		if said := s.refused(manifest); !strings.Contains(said, "field is immutable when `immutable` is set") {
			t.Errorf("%s: %s", manifest, said)
		}
	}
	s.kubectl("delete", "pod", "reader", "--wait=false")
}
