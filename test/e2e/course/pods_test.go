package course

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pod reads a pod.
func (s *class) pod(name string) *corev1.Pod {
	s.t.Helper()
	p, err := s.client.CoreV1().Pods(s.ns).Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// until waits for something of a pod's status; ok says what is still missing.
func (s *class) until(name, what string, ok func(*corev1.Pod) string) *corev1.Pod {
	s.t.Helper()
	var p *corev1.Pod
	s.eventually(what, func() (complaint string) {
		var err error
		if p, err = s.client.CoreV1().Pods(s.ns).Get(s.t.Context(), name, metav1.GetOptions{}); err != nil {
			return err.Error() // it may be made anew
		}
		return ok(p)
	})
	return p
}

func isReady(p *corev1.Pod) string {
	if ready(p) {
		return ""
	}
	return fmt.Sprintf("%s %+v", p.Status.Phase, p.Status.ContainerStatuses)
}

// terminated returns how a container ended last.
func terminated(p *corev1.Pod, name string) *corev1.ContainerStateTerminated {
	for _, c := range append(p.Status.ContainerStatuses, p.Status.InitContainerStatuses...) {
		if c.Name == name && c.State.Terminated != nil {
			return c.State.Terminated
		}
		if c.Name == name && c.LastTerminationState.Terminated != nil {
			return c.LastTerminationState.Terminated
		}
	}
	return nil
}

// journal is a folder of the host that a pod's containers write lines into, which stay when the pod is gone.
func journal(t *testing.T) (dir string, lines func() []string) {
	dir = t.TempDir()
	return dir, func() []string {
		b, err := os.ReadFile(filepath.Join(dir, "log"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Fields(string(b))
	}
}

// TestInitContainersAndSidecars: init containers run one after another, sidecars among them stay, each up before the next begins, and
// the end comes in the opposite order.
func TestInitContainersAndSidecars(t *testing.T) {
	t.Parallel()
	s := attend(t)
	dir, lines := journal(t)
	say := func(name, then string) string {
		return fmt.Sprintf(`image: "busybox:1.28", volumeMounts: [{name: j, mountPath: /j}], command: ["sh", "-c", "echo %s >> /j/log; %s"]`, name, then)
	}
	stay := func(name string) string {
		return say(name, fmt.Sprintf("trap 'echo %s-ends >> /j/log; exit 0' TERM; while true; do sleep 0.1; done", name))
	}
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: order}
spec:
  terminationGracePeriodSeconds: 20
  volumes: [{name: j, hostPath: {path: "` + dir + `"}}]
  initContainers:
    - {name: first, ` + say("first", "true") + `}
    - {name: side, restartPolicy: Always, startupProbe: {exec: {command: [grep, -q, side, /j/log]}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 60}, ` + stay("side") + `}
    - {name: second, ` + say("second", "true") + `}
    - {name: beside, restartPolicy: Always, startupProbe: {exec: {command: [grep, -q, beside, /j/log]}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 60}, ` + stay("beside") + `}
  containers:
    - {name: app, ` + stay("app") + `}
`)
	s.until("order", "the pod is ready", isReady)
	s.kubectl("delete", "pod", "order")
	want := "first side second beside app app-ends beside-ends side-ends"
	if got := strings.Join(lines(), " "); got != want {
		t.Errorf("it went %q, want %q", got, want)
	}
}

// TestProbesDecide: readiness decides about the Service, liveness about the container, startup holds both off.
func TestProbesDecide(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: Service
metadata: {name: probed}
spec: {selector: {app: probed}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: probed, labels: {app: probed}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: c
      image: busybox:1.28
      command: ["sh", "-c", "mkdir /www; echo ok > /www/up; echo ok > /www/alive; exec httpd -f -p 80 -h /www"]
      startupProbe: {tcpSocket: {port: 80}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 60}
      readinessProbe: {httpGet: {port: 80, path: /up}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1}
      livenessProbe: {exec: {command: [test, -e, /www/alive]}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1}
`)
	s.until("probed", "the pod is ready", isReady)
	endpoint := func(want string) func() string {
		return func() string {
			got := s.kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=probed", "-o", "jsonpath={.items[*].endpoints[*].conditions.ready}")
			if got != want {
				return "ready: " + got
			}
			return ""
		}
	}
	s.eventually("it is an endpoint", endpoint("true"))
	s.kubectl("exec", "probed", "--", "rm", "/www/up")
	s.eventually("it is none while it is not ready", endpoint("false"))
	s.kubectl("exec", "probed", "--", "rm", "/www/alive")
	p := s.until("probed", "it was restarted and is ready again", func(p *corev1.Pod) string {
		if p.Status.ContainerStatuses[0].RestartCount != 1 {
			return fmt.Sprintf("%+v", p.Status.ContainerStatuses)
		}
		return isReady(p)
	})
	if end := terminated(p, "c"); end == nil || end.ExitCode == 0 {
		t.Errorf("its last end: %+v", end)
	}
	s.eventually("its story is told", func() string {
		events := s.kubectl("get", "events", "--field-selector", "involvedObject.name=probed")
		for _, want := range []string{"Readiness probe failed: HTTP probe failed with statuscode: 404", "Liveness probe failed", "Container c failed liveness probe, will be restarted"} {
			if !strings.Contains(events, want) {
				return fmt.Sprintf("no event says %q:\n%s", want, events)
			}
		}
		return ""
	})
}

// TestHooks: postStart before the container counts as running, preStop before the signal.
func TestHooks(t *testing.T) {
	t.Parallel()
	s := attend(t)
	dir, lines := journal(t)
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: hooks}
spec:
  terminationGracePeriodSeconds: 20
  volumes: [{name: j, hostPath: {path: "` + dir + `"}}]
  containers:
    - name: c
      image: busybox:1.28
      volumeMounts: [{name: j, mountPath: /j}]
      command: ["sh", "-c", "trap 'echo term >> /j/log; exit 0' TERM; while true; do sleep 0.1; done"]
      lifecycle:
        postStart: {exec: {command: [sh, -c, "echo post >> /j/log"]}}
        preStop: {exec: {command: [sh, -c, "echo pre >> /j/log; sleep 0.5"]}}
`)
	s.until("hooks", "the pod is ready", isReady)
	s.kubectl("delete", "pod", "hooks")
	if got := strings.Join(lines(), " "); got != "post pre term" {
		t.Errorf("it went %q", got)
	}
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: bad-hook}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: c, image: "busybox:1.28", command: [sleep, "3600"], lifecycle: {postStart: {exec: {command: [sh, -c, "echo no; exit 3"]}}}}
`)
	s.eventually("the failed hook is told", func() string {
		events := s.kubectl("get", "events", "--field-selector", "involvedObject.name=bad-hook")
		if !strings.Contains(events, "FailedPostStartHook") {
			return events
		}
		return ""
	})
}

// TestDownwardAPI: a pod reads about itself, in its environment and in files, and files follow.
func TestDownwardAPI(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {COLOUR: blue, "not-a-name.x": kept}
---
apiVersion: v1
kind: Pod
metadata: {name: downward, labels: {tier: front}, annotations: {note: one}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: c
      image: busybox:1.28
      command: [sleep, "3600"]
      resources: {limits: {cpu: 500m, memory: 64Mi}, requests: {cpu: 250m}}
      envFrom: [{configMapRef: {name: settings}, prefix: S_}]
      env:
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NS, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
        - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
        - {name: MEM, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
        - {name: BOTH, value: "$(POD) in $(NS) $$(NS) $(NONE)"}
      volumeMounts: [{name: d, mountPath: /d}, {name: e, mountPath: /own, subPathExpr: $(NS)/$(POD)}, {name: e, mountPath: /all}]
  volumes:
    - {name: e, emptyDir: {}}
    - name: d
      downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: note, fieldRef: {fieldPath: "metadata.annotations['note']"}}]}
`)
	p := s.until("downward", "the pod is ready", isReady)
	got := s.kubectl("exec", "downward", "--", "sh", "-c", "echo $POD $NS $IP $NODE $TIER $CPU $MEM $S_COLOUR; echo $BOTH; cat /d/labels; echo; cat /d/note; touch /own/mine; cd /all; find * -type f")
	want := fmt.Sprintf("downward %s %s %s front 500 64 blue\ndownward in %s $(NS) $(NONE)\ntier=\"front\"\none%s/downward/mine\n", s.ns, p.Status.PodIP, s.c.NodeName, s.ns, s.ns)
	if got != want {
		t.Errorf("the pod reads\n%s\nwant\n%s", got, want)
	}
	s.kubectl("annotate", "pod", "downward", "note=two", "--overwrite")
	s.eventually("the file follows", func() string {
		if got := s.kubectl("exec", "downward", "--", "cat", "/d/note"); got != "two" {
			return got
		}
		return ""
	})
}

// TestEndsAreTold: out of memory, a message in the file, the log's end as message, a crash loop.
func TestEndsAreTold(t *testing.T) {
	t.Parallel()
	s := attend(t)
	end := func(name, fields, script string) string {
		return `apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  restartPolicy: Never
  containers: [{name: c, image: "busybox:1.28", ` + fields + ` command: ["sh", "-c", "` + script + `"]}]
---
`
	}
	s.apply(end("oom", "resources: {limits: {memory: 24Mi}},", "x=a; while true; do x=$x$x; done") +
		end("message", "", "echo -n why it ended > /dev/termination-log; exit 4") +
		end("fallback", "terminationMessagePolicy: FallbackToLogsOnError,", "echo the last words; exit 5") +
		strings.Replace(end("loop", "", "exit 6"), "Never", "Always", 1))
	for _, c := range []struct {
		pod, reason, message string
		code                 int32
	}{{"oom", "OOMKilled", "", 137}, {"message", "Error", "why it ended", 4}, {"fallback", "Error", "the last words\n", 5}} {
		p := s.until(c.pod, c.pod+" has ended", func(p *corev1.Pod) string {
			if p.Status.Phase != corev1.PodFailed {
				return string(p.Status.Phase)
			}
			return ""
		})
		if e := terminated(p, "c"); e == nil || e.Reason != c.reason || e.ExitCode != c.code || e.Message != c.message {
			t.Errorf("%s: %+v, want %s, %d, %q", c.pod, e, c.reason, c.code, c.message)
		}
	}
	s.until("loop", "the crash loop is told", func(p *corev1.Pod) string {
		if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Waiting == nil ||
			p.Status.ContainerStatuses[0].State.Waiting.Reason != "CrashLoopBackOff" || terminated(p, "c").ExitCode != 6 {
			return fmt.Sprintf("%+v", p.Status.ContainerStatuses)
		}
		return ""
	})
}

// TestDebug: kubectl debug beside a running container, into its processes, and on a copy.
func TestDebug(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: sick}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: app, image: "keelson.dev/hello:v1", imagePullPolicy: IfNotPresent}]}
`)
	s.until("sick", "the pod is ready", isReady)
	s.kubectl("debug", "sick", "--image=busybox:1.28", "--target=app", "-c", "doctor", "--profile=general", "--", "sh", "-c", "ps; wget -q -O - http://127.0.0.1; sleep 3600")
	s.eventually("the debugger sees the app", func() string {
		out, errs, err := s.c.Kubectl(t.Context(), "-n", s.ns, "logs", "sick", "-c", "doctor")
		if err != nil || !strings.Contains(out, "/hello") || !strings.Contains(out, "Hello from keelson") {
			return out + errs
		}
		return ""
	})
	s.kubectl("debug", "sick", "--image=busybox:1.28", "--copy-to=copy", "--share-processes", "-c", "doctor", "--profile=general", "--", "sleep", "3600")
	s.until("copy", "the copy runs", isReady)
	if out := s.kubectl("exec", "copy", "-c", "doctor", "--", "ps"); !strings.Contains(out, "/hello") {
		t.Errorf("the copy's processes:\n%s", out)
	}
}

// TestCopy: kubectl cp, both ways.
func TestCopy(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: cp}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "busybox:1.28", command: [sleep, "3600"]}]}
`)
	s.until("cp", "the pod is ready", isReady)
	here := t.TempDir()
	if err := os.MkdirAll(filepath.Join(here, "in", "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("0123456789abcdef", 1<<16)
	if err := os.WriteFile(filepath.Join(here, "in", "deep", "file"), []byte(big), 0o640); err != nil {
		t.Fatal(err)
	}
	s.kubectl("cp", filepath.Join(here, "in"), "cp:/tmp/in")
	s.kubectl("cp", "cp:/tmp/in", filepath.Join(here, "out"))
	if got, err := os.ReadFile(filepath.Join(here, "out", "deep", "file")); err != nil || string(got) != big {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
}

// TestResizeInPlace: a running container gets more CPU and memory without a restart.
func TestResizeInPlace(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: grow}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: c, image: "busybox:1.28", command: [sleep, "3600"], resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 100m, memory: 32Mi}}}
`)
	s.until("grow", "the pod is ready", isReady)
	s.kubectl("patch", "pod", "grow", "--subresource", "resize", "-p",
		`{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"200m","memory":"64Mi"},"limits":{"cpu":"200m","memory":"64Mi"}}}]}}`)
	p := s.until("grow", "the status has the new limits", func(p *corev1.Pod) string {
		r := p.Status.ContainerStatuses[0].Resources
		if r == nil || r.Limits.Cpu().String() != "200m" || r.Limits.Memory().String() != "64Mi" {
			return fmt.Sprintf("%+v", r)
		}
		return ""
	})
	if p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Error("it was restarted")
	}
	got := s.kubectl("exec", "grow", "--", "sh", "-c", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true")
	if !strings.Contains(got, fmt.Sprint(64<<20)) {
		t.Errorf("its cgroup says %q", got)
	}
}

// TestPodResources: limits of the pod as a whole.
func TestPodResources(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: whole}
spec:
  restartPolicy: Never
  resources: {limits: {memory: 32Mi, cpu: 500m}}
  containers:
    - {name: hungry, image: "busybox:1.28", command: ["sh", "-c", "x=a; while true; do x=$x$x; done"]}
`)
	p := s.until("whole", "the pod's own limit holds", func(p *corev1.Pod) string {
		if p.Status.Phase != corev1.PodFailed {
			return string(p.Status.Phase)
		}
		return ""
	})
	if e := terminated(p, "hungry"); e.Reason != "OOMKilled" {
		t.Errorf("%+v", e)
	}
	if p.Status.QOSClass != corev1.PodQOSGuaranteed && p.Status.QOSClass != corev1.PodQOSBurstable {
		t.Errorf("its class is %s", p.Status.QOSClass)
	}
}

// TestRestartRules: a container that says which of its exit codes mean what (KEP-5307).
func TestRestartRules(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: rules}
spec:
  restartPolicy: Never
  volumes: [{name: v, emptyDir: {}}]
  containers:
    - name: c
      image: busybox:1.28
      restartPolicy: Never
      restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]
      volumeMounts: [{name: v, mountPath: /v}]
      command: ["sh", "-c", "test -e /v/again && exit 7; touch /v/again; exit 42"]
`)
	p := s.until("rules", "the pod has ended", func(p *corev1.Pod) string {
		if p.Status.Phase != corev1.PodFailed {
			return fmt.Sprint(p.Status.Phase, p.Status.ContainerStatuses)
		}
		return ""
	})
	if c := p.Status.ContainerStatuses[0]; c.RestartCount != 1 || c.State.Terminated == nil || c.State.Terminated.ExitCode != 7 {
		t.Errorf("%+v", c)
	}
}

// TestRestartAll: a container whose end makes all begin anew, in their order, in the same sandbox and volumes (KEP-5532); the node
// declares that it can (KEP-5328), or the pod would have got no node.
func TestRestartAll(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: anew}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 60
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
    - {name: setup, image: "busybox:1.28", volumeMounts: [{name: v, mountPath: /v}], command: [sh, -c, "echo setup >> /v/story"]}
    - {name: side, image: "busybox:1.28", restartPolicy: Always, volumeMounts: [{name: v, mountPath: /v}], command: [sh, -c, "echo side >> /v/story; sleep 3600"]}
  containers:
    - {name: quick, image: "busybox:1.28", command: ["true"]}
    - name: app
      image: busybox:1.28
      restartPolicy: Never
      restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]
      volumeMounts: [{name: v, mountPath: /v}]
      command: ["sh", "-c", "sleep 2; test -e /v/again && exec sleep 3600; touch /v/again; exit 42"]
`)
	before := ""
	p := s.until("anew", "all its containers have begun anew", func(p *corev1.Pod) string {
		if before == "" {
			before = p.Status.PodIP
		}
		all := slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
		if len(all) != 4 {
			return "they are not told yet"
		}
		for _, c := range all {
			if c.RestartCount != 1 || c.LastTerminationState.Terminated == nil || c.State.Waiting != nil {
				return fmt.Sprint(p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
			}
		}
		return ""
	})
	why := func(c corev1.ContainerStatus) string {
		return fmt.Sprintf("%s %d", c.LastTerminationState.Terminated.Reason, c.LastTerminationState.Terminated.ExitCode)
	}
	app, side := p.Status.ContainerStatuses[1], p.Status.InitContainerStatuses[1]
	if p.Status.PodIP != before || why(app) != "Error 42" || why(side) != "RestartingAllContainers 137" {
		t.Errorf("IP %s, was %s; ends: app %s, side %s", p.Status.PodIP, before, why(app), why(side))
	}
	if story := strings.Fields(s.kubectl("exec", "anew", "-c", "app", "--", "cat", "/v/story")); !slices.Equal(story, []string{"setup", "side", "setup", "side"}) {
		t.Errorf("the containers began in this order: %v", story)
	}
	at := slices.IndexFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.AllContainersRestarting })
	if at < 0 || p.Status.Conditions[at].Status != corev1.ConditionFalse || p.Status.Phase != corev1.PodRunning {
		t.Errorf("%s %+v", p.Status.Phase, p.Status.Conditions)
	}
}

// TestResizeInit: an init container that runs gets other resources in place.
func TestResizeInit(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: grown}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
    - {name: setup, image: "busybox:1.28", command: [sleep, "3600"], resources: {requests: {memory: 64Mi}, limits: {memory: 64Mi}}}
  containers: [{name: c, image: "busybox:1.28", command: [sleep, "3600"]}]
`)
	running := func(p *corev1.Pod) string {
		if len(p.Status.InitContainerStatuses) == 0 || p.Status.InitContainerStatuses[0].State.Running == nil {
			return fmt.Sprint(p.Status.InitContainerStatuses)
		}
		return ""
	}
	s.until("grown", "its init container runs", running)
	s.kubectl("patch", "pod", "grown", "--subresource", "resize", "-p",
		`{"spec":{"initContainers":[{"name":"setup","resources":{"requests":{"memory":"96Mi"},"limits":{"memory":"96Mi"}}}]}}`)
	s.eventually("the limit in the container", func() string {
		out := s.kubectl("exec", "grown", "-c", "setup", "--", "sh", "-c", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || true")
		if strings.TrimSpace(out) != "100663296" {
			return out
		}
		return ""
	})
	if p := s.until("grown", "its init container runs", running); p.Status.InitContainerStatuses[0].RestartCount != 0 {
		t.Errorf("it was restarted: %+v", p.Status.InitContainerStatuses[0])
	}
}

// TestUserNamespace: root in the pod is nobody on the node.
func TestUserNamespace(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: mapped}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, emptyDir: {}}]
  containers: [{name: c, image: "busybox:1.28", command: [sleep, "3600"], volumeMounts: [{name: v, mountPath: /v}]}]
`)
	s.until("mapped", "the pod is ready", isReady)
	got := strings.Fields(s.kubectl("exec", "mapped", "--", "sh", "-c", "id -u; touch /v/f && stat -c %u /v/f; cat /proc/self/uid_map"))
	if len(got) != 5 || got[0] != "0" || got[1] != "0" || got[3] == "0" || got[4] != "65536" {
		t.Errorf("uid, owner of a file, map: %v", got)
	}
}

// TestNodePages: what monitoring reads from the kubelet.
func TestNodePages(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: measured}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "busybox:1.28", command: [sleep, "3600"], resources: {limits: {memory: 64Mi}}}]}
`)
	s.until("measured", "the pod is ready", isReady)
	for page, want := range map[string][]string{
		"metrics":          {"kubelet_running_pods", "kubelet_pod_start_sli_duration_seconds_bucket", "kubelet_runtime_operations_total", "process_start_time_seconds"},
		"metrics/cadvisor": {`container_memory_working_set_bytes{`, `container_cpu_usage_seconds_total{`, `namespace="` + s.ns + `",pod="measured"`, "container_network_receive_bytes_total"},
		"metrics/resource": {`node_memory_working_set_bytes`, `container_memory_working_set_bytes{container="c",namespace="` + s.ns + `",pod="measured"}`, `pod_cpu_usage_seconds_total{namespace="` + s.ns},
		"metrics/probes":   {},
		"stats/summary":    {`"name": "measured"`, `"workingSetBytes"`, `"fs"`},
	} {
		s.eventually(page, func() string {
			out := s.kubectl("get", "--raw", "/api/v1/nodes/"+s.c.NodeName+"/proxy/"+page)
			for _, w := range want {
				if !strings.Contains(out, w) && !strings.Contains(out, strings.ReplaceAll(w, `": `, `":`)) {
					return fmt.Sprintf("no %s in %d bytes", w, len(out))
				}
			}
			return ""
		})
	}
}
