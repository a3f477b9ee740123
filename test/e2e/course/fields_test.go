package course

import (
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/image/imagetest"
	"keelson.dev/keelson/test/lab/labtest"
)

// TestPullSecrets: of a registry that demands a login, an image is had with a secret of the pod's or of its account's, and
// without one, or with a wrong one, it is not: not even once it is on the node (KEP-2535).
func TestPullSecrets(t *testing.T) {
	t.Parallel()
	s := attend(t)
	image, err := imagetest.Busybox(v1.Config{Env: []string{"PRIVATE=" + s.ns}}) // nobody else's: what is public under another name is everybody's
	if err != nil {
		t.Fatal(err)
	}
	const name = "private.example/tools/busybox:1"
	registry := imagetest.NewRegistry()
	if _, err := registry.Add(name, image); err != nil {
		t.Fatal(err)
	}
	registry.SetFaults(imagetest.BasicAuth("ann", "right"))
	server := httptest.NewServer(registry)
	t.Cleanup(server.Close)
	if err := imagetest.WriteHosts(s.c.CertsDir(), server.URL, "private.example"); err != nil {
		t.Fatal(err)
	}
	for secret, password := range map[string]string{"login": "right", "wrong": "else"} {
		s.kubectl("create", "secret", "docker-registry", secret, "--docker-server=private.example", "--docker-username=ann", "--docker-password="+password)
	}
	s.kubectl("create", "serviceaccount", "puller")
	s.kubectl("patch", "serviceaccount", "puller", "-p", `{"imagePullSecrets":[{"name":"login"}]}`)
	pod := func(pod, spec string) string {
		return strings.Replace(sleeper(pod, spec, ""), "busybox:1.28", name, 1)
	}
	refused := func(pod string) {
		t.Helper()
		if message := s.waiting(pod, "ImagePullBackOff"); !strings.Contains(message, name) || !strings.Contains(message, "401") && !strings.Contains(message, "authentication required") {
			t.Errorf("%s waits with %q", pod, message)
		}
	}
	s.apply(pod("stranger", "") + pod("impostor", "imagePullSecrets: [{name: wrong}], "))
	refused("stranger")
	refused("impostor")
	s.apply(pod("named", "imagePullSecrets: [{name: login}], ") + pod("of-account", "serviceAccountName: puller, "))
	s.until("named", "the pod with the secret is ready", isReady)
	s.until("of-account", "the pod of the account is ready", isReady)
	s.apply(pod("late", ""))
	s.until("late", "without a secret the image is not there", func(p *corev1.Pod) string {
		for _, c := range p.Status.ContainerStatuses {
			if w := c.State.Waiting; w != nil && strings.Contains(w.Reason, "ImagePull") {
				return ""
			}
		}
		return fmt.Sprintf("%+v", p.Status.ContainerStatuses)
	})
}

// TestTopologySpread: more than the skew allows waits, with the reason, until there is room; so does a pod that is to be spread over
// places that no node is in; one that would rather be spread does not wait.
func TestTopologySpread(t *testing.T) {
	t.Parallel()
	s := attend(t)
	pod := func(name, constraint string) string {
		return strings.Replace(sleeper(name, "topologySpreadConstraints: [{maxSkew: 1, labelSelector: {matchLabels: {app: spread}}, "+constraint+"}], ", ""),
			"metadata: {", "metadata: {labels: {app: spread}, ", 1)
	}
	told := func(name, why string) {
		t.Helper()
		s.until(name, name+" is told why it waits", func(p *corev1.Pod) string {
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable && strings.Contains(c.Message, "1 node(s) didn't match pod topology spread constraints"+why) {
					return ""
				}
			}
			return fmt.Sprintf("%+v", p.Status)
		})
	}
	const two = "minDomains: 2, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule"
	s.apply(pod("first", two))
	s.until("first", "the first is ready", isReady)
	s.apply(pod("second", two) + pod("nowhere", "topologyKey: example.com/rack, whenUnsatisfiable: DoNotSchedule"))
	told("second", "")
	told("nowhere", " (missing required label)")
	s.apply(pod("anyway", "topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway"))
	s.until("anyway", "the one that need not be spread is ready", isReady)
	s.kubectl("delete", "pod", "first", "anyway")
	s.until("second", "the second has room", func(p *corev1.Pod) string {
		if p.Spec.NodeName == "" {
			return "not bound"
		}
		return isReady(p)
	})
}

// TestProgressDeadline: a rollout that gets nowhere is given up on, in the words that scripts look for, and goes on once it can.
func TestProgressDeadline(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: apps/v1
kind: Deployment
metadata: {name: late}
spec:
  progressDeadlineSeconds: 2
  selector: {matchLabels: {app: late}}
  template:
    metadata: {labels: {app: late}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "busybox:1.28", command: [sleep, "3600"], readinessProbe: {exec: {command: ["false"]}}}]}
`)
	if said := labtest.Refused(t, s.c, "", "-n", s.ns, "rollout", "status", "deployment/late", "--timeout=180s"); !strings.Contains(said, `error: deployment "late" exceeded its progress deadline`) {
		t.Errorf("rollout status says %q", said)
	}
	progressing := func() string {
		return s.kubectl("get", "deployment", "late", "-o", `jsonpath={.status.conditions[?(@.type=="Progressing")]['status','reason','message']}`)
	}
	if got := progressing(); !strings.HasPrefix(got, `False ProgressDeadlineExceeded ReplicaSet "late-`) || !strings.HasSuffix(got, " has timed out progressing.") {
		t.Errorf("the condition says %q", got)
	}
	s.kubectl("patch", "deployment", "late", "--type=json", "-p", `[{"op":"replace","path":"/spec/progressDeadlineSeconds","value":600},{"op":"remove","path":"/spec/template/spec/containers/0/readinessProbe"}]`)
	s.rolledOut("deployment/late")
	s.eventually("the condition tells the end", func() string {
		if got := progressing(); !strings.HasPrefix(got, "True NewReplicaSetAvailable ") {
			return got
		}
		return ""
	})
}

// TestFSGroupChangePolicy: OnRootMismatch leaves what is in a volume alone whose root has the group; Always does not, nor does a root
// of another group.
func TestFSGroupChangePolicy(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: shared}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}}`)
	for i, row := range []struct{ group, policy, script, want string }{
		{"3000", "Always", "touch /v/f; chgrp 4000 /v/f", "4000"},
		{"3000", "OnRootMismatch", "true", "4000"},
		{"3000", "Always", "chgrp 4000 /v", "3000"},
		{"3000", "OnRootMismatch", "chgrp 4000 /v/f", "4000"}, // its root was another's
		{"5000", "OnRootMismatch", "true", "5000"},
	} {
		name := fmt.Sprint("user-", i)
		s.apply(`apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  restartPolicy: Never
  securityContext: {fsGroup: ` + row.group + `, fsGroupChangePolicy: ` + row.policy + `}
  volumes: [{name: v, persistentVolumeClaim: {claimName: shared}}]
  containers: [{name: c, image: "busybox:1.28", volumeMounts: [{name: v, mountPath: /v}], command: ["sh", "-c", "stat -c %g /v; ` + row.script + `; stat -c %g /v/f"]}]
`)
		s.until(name, name+" has ended", func(p *corev1.Pod) string {
			if p.Status.Phase != corev1.PodSucceeded {
				return fmt.Sprintf("%s %+v", p.Status.Phase, p.Status.ContainerStatuses)
			}
			return ""
		})
		if got := strings.Fields(s.kubectl("logs", name)); len(got) != 2 || got[0] != row.group || got[1] != row.want {
			t.Errorf("%s, %+v: groups of the root and of the file are %q", name, row, got)
		}
	}
}

// TestHostPathTypes: what each type takes, and makes; and what it does not, in upstream's words.
func TestHostPathTypes(t *testing.T) {
	t.Parallel()
	s := attend(t)
	dir := t.TempDir()
	file, socket, disk := filepath.Join(dir, "file"), filepath.Join(dir, "socket"), filepath.Join(dir, "disk")
	if err := os.WriteFile(file, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	if err := unix.Mknod(disk, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))); err != nil { // the first loop device, which nobody opens
		t.Skipf("no device nodes in %s: %v", dir, err)
	}
	newDir, newFile, none := filepath.Join(dir, "a", "b"), filepath.Join(dir, "new"), filepath.Join(dir, "none")
	volumes, mounts, pods := "", "", ""
	told := map[string]string{} // by pod
	for i, row := range []struct{ typ, path, wrong, want string }{
		{"Directory", dir, none, "directory"}, {"DirectoryOrCreate", newDir, file, "directory"},
		{"File", file, none, "file"}, {"FileOrCreate", newFile, dir, "file"},
		{"Socket", socket, file, "socket file"}, {"CharDevice", "/dev/null", disk, "character device"}, {"BlockDevice", disk, "/dev/null", "block device"},
	} {
		volumes += fmt.Sprintf("{name: v%d, hostPath: {path: %s, type: %s}}, ", i, row.path, row.typ)
		mounts += fmt.Sprintf("{name: v%d, mountPath: /v/%s}, ", i, row.typ)
		name := "wrong-" + strings.ToLower(row.typ)
		pods += sleeper(name, fmt.Sprintf("volumes: [{name: v, hostPath: {path: %s, type: %s}}], ", row.wrong, row.typ), "volumeMounts: [{name: v, mountPath: /v}],")
		told[name] = "hostPath type check failed: " + row.wrong + " is not a " + row.want
	}
	s.apply(pods + sleeper("right", "volumes: ["+volumes+"], ", "volumeMounts: ["+mounts+"],"))
	s.eventually("each wrong one is told", func() string {
		out := s.kubectl("get", "events", "--field-selector", "reason=FailedMount", "-o", `jsonpath={range .items[*]}{.involvedObject.name}: {.message}{"\n"}{end}`)
		for name, why := range told {
			if !regexp.MustCompile(`(?m)^` + name + `: .*` + regexp.QuoteMeta(why)).MatchString(out) {
				return fmt.Sprintf("%s is not told %q in\n%s", name, why, out)
			}
		}
		return ""
	})
	s.until("right", "the pod is ready", isReady)
	kinds := s.kubectl("exec", "right", "--", "stat", "-c", "%n %F", "/v/Directory", "/v/DirectoryOrCreate", "/v/File", "/v/FileOrCreate", "/v/Socket", "/v/CharDevice", "/v/BlockDevice")
	want := "/v/Directory directory\n/v/DirectoryOrCreate directory\n/v/File regular file\n/v/FileOrCreate regular empty file\n/v/Socket socket\n/v/CharDevice character special file\n/v/BlockDevice block special file\n"
	if kinds != want {
		t.Errorf("in the pod they are\n%swant\n%s", kinds, want)
	}
	for path, mode := range map[string]os.FileMode{newDir: 0o755 | os.ModeDir, newFile: 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v, want mode %v", path, info, err, mode)
		}
	}
	if _, err := os.Lstat(none); !os.IsNotExist(err) {
		t.Errorf("%s was made: %v", none, err)
	}
}

// TestEmptyDirLimits: a pod that puts more into its volume than the volume may hold is evicted, with the reason; of a volume in memory
// the limit is its size.
func TestEmptyDirLimits(t *testing.T) {
	t.Parallel()
	s := attend(t)
	pod := func(name, volume, then string) string {
		return strings.Replace(sleeper(name, "volumes: [{name: v, emptyDir: {"+volume+"}}], ", "volumeMounts: [{name: v, mountPath: /v}],"), `[sleep, "3600"]`, `[sh, -c, "dd if=/dev/zero of=/v/f bs=1M count=4; `+then+`"]`, 1)
	}
	s.apply(pod("disk", "sizeLimit: 1Mi", "sleep 3600") + pod("memory", "medium: Memory, sizeLimit: 1Mi", "sleep 3600"))
	s.until("memory", "the pod runs", isReady)
	s.eventually("the volume in memory is full", func() string {
		if out := s.kubectl("logs", "memory"); !strings.Contains(out, "No space left on device") {
			return out
		}
		return ""
	})
	p := s.until("disk", "the pod is evicted", func(p *corev1.Pod) string {
		if p.Status.Phase != corev1.PodFailed {
			return string(p.Status.Phase)
		}
		return ""
	})
	if p.Status.Reason != "Evicted" || p.Status.Message != `Usage of EmptyDir volume "v" exceeds the limit "1Mi". ` {
		t.Errorf("%s: %q", p.Status.Reason, p.Status.Message)
	}
}

// TestImageVolume: the files of an image as a volume, or a folder of them; nobody writes to them (KEP-4639).
func TestImageVolume(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(sleeper("reader", `volumes: [{name: v, image: {reference: "nginx:1.14.2", pullPolicy: IfNotPresent}}], `,
		"volumeMounts: [{name: v, mountPath: /all}, {name: v, mountPath: /etc/of-it, subPath: etc}],"))
	s.until("reader", "the pod is ready", isReady)
	got := s.kubectl("exec", "reader", "--", "sh", "-c", "test -d /all/etc && ls /all/etc | md5sum; ls /etc/of-it | md5sum; touch /all/f 2>&1; true")
	lines := strings.Split(strings.TrimSpace(got), "\n")
	if len(lines) != 3 || lines[0] != lines[1] || !strings.Contains(lines[2], "Read-only file system") {
		t.Errorf("the pod sees\n%s", got)
	}
	s.apply(sleeper("none", `volumes: [{name: v, image: {reference: "busybox:no-such-tag"}}], `, "volumeMounts: [{name: v, mountPath: /v}],"))
	s.eventually("an image that is not there is told", func() string {
		out := s.kubectl("get", "events", "--field-selector", "involvedObject.name=none", "-o", "jsonpath={.items[*].message}")
		if !strings.Contains(out, `Failed to pull image "busybox:no-such-tag"`) {
			return out
		}
		return ""
	})
}

// TestPodResourcesResize: limits of the pod as a whole change in place, up and down; what is too much is not granted, and what the pod
// has in use is not taken from it (KEP-5419).
func TestPodResourcesResize(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(`apiVersion: v1
kind: Pod
metadata: {name: whole}
spec:
  terminationGracePeriodSeconds: 1
  resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 500m, memory: 64Mi}}
  containers: [{name: c, image: "busybox:1.28", command: ["sh", "-c", "dd if=/dev/zero of=/dev/shm/held bs=1M count=20 && exec sleep 3600"], readinessProbe: {exec: {command: [sh, -c, "test $(stat -c %s /dev/shm/held) = 20971520"]}, periodSeconds: 1}}]
`)
	p := s.until("whole", "the pod is ready", isReady)
	limit := func() string {
		for _, pattern := range []string{"/sys/fs/cgroup/%s*/kubepods/burstable/pod%s/memory.max", "/sys/fs/cgroup/memory/%s*/kubepods/burstable/pod%s/memory.limit_in_bytes"} {
			for _, path := range must(filepath.Glob(fmt.Sprintf(pattern, "keelson-lab-", p.UID))) {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				return strings.TrimSpace(string(text))
			}
		}
		return "no cgroup of the pod"
	}
	resize := func(memory string) {
		t.Helper()
		s.kubectl("patch", "pod", "whole", "--subresource", "resize", "-p", `{"spec":{"resources":{"requests":{"memory":"`+memory+`"},"limits":{"memory":"`+memory+`"}}}}`)
	}
	inForce := func(mega int) {
		t.Helper()
		s.until("whole", fmt.Sprint(mega, " Mi are in force"), func(p *corev1.Pod) string {
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodResizePending || c.Type == corev1.PodResizeInProgress {
					return fmt.Sprintf("%+v", c)
				}
			}
			want := fmt.Sprint(mega, "Mi")
			if r := p.Status.Resources; r == nil || r.Limits.Memory().String() != want || r.Limits.Cpu().String() != "500m" || p.Status.AllocatedResources.Memory().String() != want {
				return fmt.Sprintf("%+v, allocated %v", r, p.Status.AllocatedResources)
			}
			if got := limit(); got != strconv.Itoa(mega<<20) {
				return "the pod's cgroup says " + got
			}
			return ""
		})
	}
	waits := func(typ corev1.PodConditionType, reason, message string) {
		t.Helper()
		s.until("whole", "it is told why not", func(p *corev1.Pod) string {
			for _, c := range p.Status.Conditions {
				if c.Type == typ && c.Reason == reason && strings.Contains(c.Message, message) {
					return ""
				}
			}
			return fmt.Sprintf("%+v", p.Status.Conditions)
		})
	}
	inForce(64)
	resize("96Mi")
	inForce(96)
	resize("9Mi")
	waits(corev1.PodResizeInProgress, corev1.PodReasonError, "below current usage")
	if got := s.pod("whole").Status.Resources.Limits.Memory().String(); got != "96Mi" || limit() != strconv.Itoa(96<<20) {
		t.Errorf("less than is in use was taken: the status says %s, the cgroup %s", got, limit())
	}
	_, said, err := s.c.Kubectl(t.Context(), "-n", s.ns, "patch", "pod", "whole", "--subresource", "resize", "-p", `{"spec":{"resources":{"requests":{"memory":"9000Gi"},"limits":{"memory":"9000Gi"}}}}`)
	if err == nil || !strings.Contains(said, "node didn't have enough allocatable resources: memory, requested: 9663676416000") {
		t.Errorf("more than the node has: %v, %s", err, said)
	}
	if limit() != strconv.Itoa(96<<20) {
		t.Errorf("more than the node has was granted: %s", limit())
	}
	resize("48Mi")
	inForce(48)
	if c := s.pod("whole").Status.ContainerStatuses[0]; c.RestartCount != 0 {
		t.Errorf("it was restarted: %+v", c)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
