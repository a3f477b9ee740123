package workloads

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestContainers: the image's entrypoint and arguments, each overridden, and both.
func TestContainers(t *testing.T) {
	s := begin(t)
	for i, row := range []struct {
		command, args []string
		want          string
	}{
		{nil, []string{"args", "override", "arguments"}, "/agnhost args override arguments"},
		{[]string{"/agnhost", "args", "c"}, nil, "/agnhost args c"},
		{[]string{"/agnhost", "args"}, []string{"override", "$(MESSAGE)", "$$(MESSAGE)", "$(ABSENT)"}, "/agnhost args override hi $(MESSAGE) $(ABSENT)"},
	} {
		p := program(fmt.Sprint("args-", i))
		p.Spec.Containers[0].Command, p.Spec.Containers[0].Args = row.command, row.args
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "MESSAGE", Value: "hi"}}
		s.equal("arguments", strings.TrimSpace(s.output(p)), row.want)
	}
}

func field(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
}

func resourceField(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: path}}}
}

// TestEnvironment: composed variables, ConfigMap and Secret by key and whole, with a prefix, the downward API with and without limits, in files too.
func TestEnvironment(t *testing.T) {
	s := begin(t)
	s.configMap("cm", map[string]string{"data-1": "value-1", "data_2": "value-2"})
	s.secret("sec", map[string]string{"data-1": "value-1", "data_2": "value-2"})
	p := shell("env", "")
	p.Spec.Containers[0].Command = []string{"env"} // a shell would keep names with a dash to itself
	c := &p.Spec.Containers[0]
	c.Env = []corev1.EnvVar{{Name: "FOO", Value: "foo-value"}, {Name: "BAR", Value: "bar-value"}, {Name: "FOOBAR", Value: "$(FOO);;$(BAR)"}, {Name: "LATER", Value: "$(NOT_YET)"}, {Name: "NOT_YET", Value: "x"},
		field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace"), field("POD_IP", "status.podIP"), field("POD_IPS", "status.podIPs"), field("HOST_IP", "status.hostIP"), field("HOST_IPS", "status.hostIPs"),
		field("POD_UID", "metadata.uid"), field("NODE", "spec.nodeName"), field("ACCOUNT", "spec.serviceAccountName"), field("LABEL", "metadata.labels['name']"),
		resourceField("CPU_LIMIT", "limits.cpu"), resourceField("MEMORY_LIMIT", "limits.memory"), resourceField("CPU_REQUEST", "requests.cpu"), resourceField("MEMORY_REQUEST", "requests.memory"),
		{Name: "CONFIG_DATA_1", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "data-1"}}},
		{Name: "SECRET_DATA", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}, Key: "data-1"}}},
	}
	c.EnvFrom = []corev1.EnvFromSource{
		{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}},
		{Prefix: "p-", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}},
		{Prefix: "s_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}}},
	}
	c.Resources = corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("250m"), "memory": resource.MustParse("32Mi")}, Limits: corev1.ResourceList{"cpu": resource.MustParse("1250m"), "memory": resource.MustParse("64Mi")}}
	out := "\n" + s.output(p)
	made := s.pod("env")
	s.contains("the environment", out, "\nFOOBAR=foo-value;;bar-value\n", "\nLATER=$(NOT_YET)\n", "\nPOD_NAME=env\n", "\nPOD_NAMESPACE="+s.ns+"\n", "\nPOD_IP="+made.Status.PodIP+"\n", "\nPOD_IPS="+made.Status.PodIP+"\n",
		"\nHOST_IP="+s.c.NodeIP+"\n", "\nHOST_IPS="+s.c.NodeIP+"\n", "\nPOD_UID="+string(made.UID)+"\n", "\nNODE=lab\n", "\nACCOUNT=default\n", "\nLABEL=env\n", "\nCPU_LIMIT=2\n", "\nMEMORY_LIMIT=67108864\n", "\nCPU_REQUEST=1\n", "\nMEMORY_REQUEST=33554432\n",
		"\nCONFIG_DATA_1=value-1\n", "\nSECRET_DATA=value-1\n", "\ndata-1=value-1\n", "\ndata_2=value-2\n", "\np-data-1=value-1\n", "\np-data_2=value-2\n", "\ns_data-1=value-1\n", "\ns_data_2=value-2\n", "\nKUBERNETES_SERVICE_HOST=")

	free := shell("free", "env")
	free.Spec.Containers[0].Env = []corev1.EnvVar{resourceField("CPU_LIMIT", "limits.cpu"), resourceField("MEMORY_LIMIT", "limits.memory")}
	node, err := s.client.CoreV1().Nodes().Get(t.Context(), s.c.NodeName, metav1.GetOptions{})
	s.must(err)
	cpu := node.Status.Allocatable.Cpu().MilliValue()
	s.contains("the environment without limits", "\n"+s.output(free), fmt.Sprintf("\nCPU_LIMIT=%d\n", (cpu+999)/1000), fmt.Sprintf("\nMEMORY_LIMIT=%d\n", node.Status.Allocatable.Memory().Value()))

	files := []corev1.DownwardAPIVolumeFile{{Path: "cpu", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "c", Resource: "limits.cpu"}}, {Path: "memory", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "c", Resource: "limits.memory"}}}
	for name, source := range map[string]corev1.VolumeSource{"downward": {DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: files}},
		"projected": {Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{Items: files}}}}}} {
		out := s.output(mounted(shell(name, "grep -H . /v/cpu /v/memory"), source))
		s.contains("without limits, the files of a volume that is "+name, out, fmt.Sprintf("/v/cpu:%d\n", (cpu+999)/1000), fmt.Sprintf("/v/memory:%d\n", node.Status.Allocatable.Memory().Value()))
	}

	for _, key := range []string{"", "a/b", "..", "."} {
		_, err := s.client.CoreV1().ConfigMaps(s.ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "empty"}, Data: map[string]string{key: "v"}}, metav1.CreateOptions{})
		if !apierrors.IsInvalid(err) {
			t.Errorf("a ConfigMap with the key %q: %v, want Invalid", key, err)
		}
		_, err = s.client.CoreV1().Secrets(s.ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "empty"}, StringData: map[string]string{key: "v"}}, metav1.CreateOptions{})
		if !apierrors.IsInvalid(err) {
			t.Errorf("a Secret with the key %q: %v, want Invalid", key, err)
		}
	}
}

// TestServiceEnvironment: variables of Services that were there before the pod.
func TestServiceEnvironment(t *testing.T) {
	s := begin(t)
	svc, err := s.client.CoreV1().Services(s.ns).Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "fooservice"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"name": "x"}, Ports: []corev1.ServicePort{{Port: 8765, TargetPort: intstr.FromInt32(8080)}}}}, metav1.CreateOptions{})
	s.must(err)
	ip := svc.Spec.ClusterIP
	s.eventually("the Service's variables", func() string {
		out := s.output(shell(fmt.Sprint("env-", len(s.pods(""))), "env"))
		for _, want := range []string{"FOOSERVICE_SERVICE_HOST=" + ip, "FOOSERVICE_SERVICE_PORT=8765", "FOOSERVICE_PORT=tcp://" + ip + ":8765", "FOOSERVICE_PORT_8765_TCP_PORT=8765", "FOOSERVICE_PORT_8765_TCP_PROTO=tcp", "FOOSERVICE_PORT_8765_TCP=tcp://" + ip + ":8765", "FOOSERVICE_PORT_8765_TCP_ADDR=" + ip} {
			if !strings.Contains(out, want+"\n") {
				return "no " + want
			}
		}
		return ""
	})
}

func (s *spec) pods(selector string) []corev1.Pod {
	s.Helper()
	list, err := s.client.CoreV1().Pods(s.ns).List(s.Context(), metav1.ListOptions{LabelSelector: selector})
	s.must(err)
	return list.Items
}

// TestHooks: postStart and preStop by exec, HTTP and HTTPS, with their headers, and a preStop that sleeps.
func TestHooks(t *testing.T) {
	s := begin(t)
	handler := s.run(readyOn(program("handler", "hook"), 8080))
	asked := func(want string) {
		t.Helper()
		s.eventually("the hook's request", func() string {
			out, err := s.client.CoreV1().RESTClient().Get().Namespace(s.ns).Resource("pods").Name("handler:8080").SubResource("proxy").Suffix("asked").DoRaw(t.Context())
			if err != nil {
				return err.Error()
			}
			if !strings.Contains(string(out), want) {
				return fmt.Sprintf("no %q in %q", want, out)
			}
			return ""
		})
	}
	http := func(scheme corev1.URIScheme, port int32, path string) *corev1.LifecycleHandler {
		return &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Scheme: scheme, Host: handler.Status.PodIP, Port: intstr.FromInt32(port), Path: path, HTTPHeaders: []corev1.HTTPHeader{{Name: "X-Hook", Value: "yes"}}}}
	}
	shellHook := func(path string) *corev1.LifecycleHandler {
		return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "wget -qO- http://" + handler.Status.PodIP + ":8080" + path}}}
	}
	for name, hooks := range map[string][2]*corev1.LifecycleHandler{
		"exec": {shellHook("/echo?msg=exec-start"), shellHook("/echo?msg=exec-stop")}, "http": {http("HTTP", 8080, "/echo?msg=http-start"), http("HTTP", 8080, "/echo?msg=http-stop")},
		"https": {http("HTTPS", 9090, "/echo?msg=https-start"), http("HTTPS", 9090, "/echo?msg=https-stop")},
	} {
		p := shell("hooked-"+name, "sleep 1000")
		p.Spec.TerminationGracePeriodSeconds = ptr(int64(15))
		p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: hooks[0], PreStop: hooks[1]}
		s.run(p)
		asked("GET /echo?msg=" + name + "-start")
		s.must(s.client.CoreV1().Pods(s.ns).Delete(t.Context(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(15))}))
		asked("GET /echo?msg=" + name + "-stop")
	}
	asked("GET /echo?msg=http-stop yes")
}

// readyOn makes a pod ready once a port takes connections.
func readyOn(p *corev1.Pod, port int32) *corev1.Pod {
	p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}}}
	return p
}

// TestTerminationMessages: by file, by log on error, none on success, as non-root at a path of its own.
func TestTerminationMessages(t *testing.T) {
	s := begin(t)
	for name, row := range map[string]struct {
		script, path string
		policy       corev1.TerminationMessagePolicy
		uid          int64
		want         string
	}{
		"file":    {"printf DONE >/dev/termination-log", "", corev1.TerminationMessageReadFile, 0, "DONE"},
		"nonroot": {"printf DONE >/dev/termination-custom-log", "/dev/termination-custom-log", corev1.TerminationMessageReadFile, 1000, "DONE"},
		"log":     {"printf DONE; exit 1", "", corev1.TerminationMessageFallbackToLogsOnError, 0, "DONE"},
		"silent":  {"printf DONE", "", corev1.TerminationMessageFallbackToLogsOnError, 0, ""},
		"both":    {"printf OK >/dev/termination-log", "", corev1.TerminationMessageFallbackToLogsOnError, 0, "OK"},
	} {
		p := shell(name, row.script)
		p.Spec.Containers[0].TerminationMessagePath, p.Spec.Containers[0].TerminationMessagePolicy = row.path, row.policy
		if row.uid != 0 {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: &row.uid}
		}
		s.create(p)
		e := s.until(name, "ends", ended)
		s.equal(name+"'s message", e.Status.ContainerStatuses[0].State.Terminated.Message, row.want)
	}
}

// TestRestartPolicies: phase, readiness, restarts and state of a container that ends, by policy.
func TestRestartPolicies(t *testing.T) {
	s := begin(t)
	// The container ends badly once, then (Always) runs, or (OnFailure) ends well.
	script := "f=/v/count; n=$(cat $f 2>/dev/null || echo 0); echo $((n+1)) >$f; if [ $n = 0 ]; then exit 1; fi; %s"
	for name, row := range map[string]struct {
		policy   corev1.RestartPolicy
		rest     string
		phase    corev1.PodPhase
		restarts int32
		ready    bool
	}{
		"always":    {corev1.RestartPolicyAlways, "sleep 1000", corev1.PodRunning, 1, true},
		"onfailure": {corev1.RestartPolicyOnFailure, "exit 0", corev1.PodSucceeded, 1, false},
		"never":     {corev1.RestartPolicyNever, "exit 0", corev1.PodFailed, 0, false},
	} {
		p := mounted(shell(name, fmt.Sprintf(script, row.rest)), corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
		p.Spec.RestartPolicy = row.policy
		s.create(p)
		e := s.until(name, "comes to its end", func(p *corev1.Pod) bool {
			return p.Status.Phase == row.phase && p.Status.ContainerStatuses[0].RestartCount == row.restarts && ready(p) == row.ready
		})
		state := e.Status.ContainerStatuses[0].State
		s.equal(name+" runs", state.Running != nil, row.phase == corev1.PodRunning)
		if row.phase == corev1.PodFailed {
			s.equal("reason", state.Terminated.Reason, "Error")
			s.equal("exit code", state.Terminated.ExitCode, 1)
		}
	}
}

// TestInitContainers: in order, once, with the conditions that the specs look for.
func TestInitContainers(t *testing.T) {
	s := begin(t)
	with := func(name string, policy corev1.RestartPolicy, first, second, main string) *corev1.Pod {
		p := shell(name, main)
		p.Spec.RestartPolicy = policy
		for i, script := range []string{first, second} {
			p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: fmt.Sprint("init", i+1), Image: busybox, Command: []string{"sh", "-c", script}})
		}
		return p
	}
	s.create(with("never", corev1.RestartPolicyNever, "true", "true", "true"))
	e := s.until("never", "ends", ended)
	s.equal("phase", e.Status.Phase, corev1.PodSucceeded)
	s.equal("Initialized", condition(e, corev1.PodInitialized).Status, "True")
	for _, c := range e.Status.InitContainerStatuses {
		s.equal(c.Name+" is ready", c.Ready, true)
		s.equal(c.Name+"'s exit code", c.State.Terminated.ExitCode, 0)
	}
	running := s.run(with("always", corev1.RestartPolicyAlways, "true", "true", "sleep 1000"))
	s.equal("Initialized", condition(running, corev1.PodInitialized).Status, "True")

	s.create(with("stuck", corev1.RestartPolicyAlways, "false", "true", "sleep 1000"))
	stuck := s.until("stuck", "restarts its first init container", func(p *corev1.Pod) bool {
		return len(p.Status.InitContainerStatuses) == 2 && p.Status.InitContainerStatuses[0].RestartCount >= 3
	})
	s.equal("phase", stuck.Status.Phase, corev1.PodPending)
	s.equal("Initialized", condition(stuck, corev1.PodInitialized).Status, "False")
	s.equal("Initialized's reason", condition(stuck, corev1.PodInitialized).Reason, "ContainersNotInitialized")
	s.equal("Initialized's message", condition(stuck, corev1.PodInitialized).Message, "containers with incomplete status: [init1 init2]")
	s.equal("the second waits", stuck.Status.InitContainerStatuses[1].State.Waiting.Reason, "PodInitializing")
	s.equal("the container waits", stuck.Status.ContainerStatuses[0].State.Waiting.Reason, "PodInitializing")

	s.create(with("failed", corev1.RestartPolicyNever, "true", "false", "true"))
	f := s.until("failed", "ends", ended)
	s.equal("phase", f.Status.Phase, corev1.PodFailed)
	s.equal("Initialized", condition(f, corev1.PodInitialized).Status, "False")
	s.equal("Initialized's reason", condition(f, corev1.PodInitialized).Reason, "ContainersNotInitialized")
	s.equal("Initialized's message", condition(f, corev1.PodInitialized).Message, "containers with incomplete status: [init2]")
	s.equal("the first ended well", f.Status.InitContainerStatuses[0].State.Terminated.ExitCode, 0)
	s.equal("the second ended badly", f.Status.InitContainerStatuses[1].State.Terminated.ExitCode, 1)
	if w := f.Status.ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "PodInitializing" {
		t.Errorf("the container's state is %+v, want waiting, PodInitializing", f.Status.ContainerStatuses[0].State)
	}
}

// TestHostsFile: hostAliases, and who manages /etc/hosts.
func TestHostsFile(t *testing.T) {
	s := begin(t)
	p := shell("aliases", "cat /etc/hosts")
	p.Spec.HostAliases = []corev1.HostAlias{{IP: "123.45.67.89", Hostnames: []string{"foo", "bar"}}}
	s.contains("/etc/hosts", s.output(p), "# Kubernetes-managed hosts file.", "# Entries added by HostAliases.\n123.45.67.89\tfoo\tbar")
	own := shell("own", "cat /etc/hosts")
	own.Spec.Volumes = []corev1.Volume{{Name: "hosts", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc/hosts", Type: ptr(corev1.HostPathFile)}}}}
	own.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "hosts", MountPath: "/etc/hosts"}}
	host := shell("host", "cat /etc/hosts")
	host.Spec.HostNetwork = true
	for _, p := range []*corev1.Pod{own, host} {
		if out := s.output(p); strings.Contains(out, "# Kubernetes-managed hosts file.\n") {
			t.Errorf("%s: /etc/hosts is the kubelet's:\n%s", p.Name, out)
		}
	}
}

// TestRuntimeClasses: unknown and deleted ones are forbidden; overhead and scheduling come from the class.
func TestRuntimeClasses(t *testing.T) {
	s := begin(t)
	classes := s.client.NodeV1().RuntimeClasses()
	p := shell("nobody", "true")
	p.Spec.RuntimeClassName = ptr(s.ns + "-nobody")
	if _, err := s.client.CoreV1().Pods(s.ns).Create(t.Context(), p, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a pod of an unknown class: %v, want Forbidden", err)
	}
	rc, err := classes.Create(t.Context(), &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: s.ns + "-class"}, Handler: "test-handler",
		Overhead: &nodev1.Overhead{PodFixed: corev1.ResourceList{"cpu": resource.MustParse("10m"), "memory": resource.MustParse("1Mi")}}}, metav1.CreateOptions{})
	s.must(err)
	p = shell("over", "true")
	p.Spec.RuntimeClassName = &rc.Name
	made := s.create(p)
	s.equal("overhead", made.Spec.Overhead.Cpu().String()+" "+made.Spec.Overhead.Memory().String(), "10m 1Mi")
	s.until("over", "is scheduled", func(p *corev1.Pod) bool { return p.Spec.NodeName != "" })
	s.must(s.client.CoreV1().Pods(s.ns).Delete(t.Context(), "over", metav1.DeleteOptions{}))
	s.must(classes.Delete(t.Context(), rc.Name, metav1.DeleteOptions{}))
	s.eventually("the class goes", func() string {
		if _, err := classes.Get(t.Context(), rc.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Sprint(err)
		}
		return ""
	})
	p.Name = "late"
	s.eventually("a pod of a deleted class is forbidden", func() string {
		_, err := s.client.CoreV1().Pods(s.ns).Create(t.Context(), p, metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) {
			return fmt.Sprint(err)
		}
		return ""
	})
}

// TestSysctls: safe ones apply, wrong names are Invalid.
func TestSysctls(t *testing.T) {
	s := begin(t)
	p := shell("safe", "sysctl kernel.shm_rmid_forced")
	p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel/shm_rmid_forced", Value: "1"}}}
	s.contains("sysctl", s.output(p), "kernel.shm_rmid_forced = 1")
	p = shell("wrong", "true")
	p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "foo-", Value: "bar"}, {Name: "kernel.shmmax", Value: "100000000"}, {Name: "safe-and-unsafe", Value: "100000000"}, {Name: "bar..", Value: "42"}}}
	_, err := s.client.CoreV1().Pods(s.ns).Create(t.Context(), p, metav1.CreateOptions{})
	if err == nil {
		t.Fatal("wrong sysctls are accepted")
	}
	s.contains("the refusal", err.Error(), `Invalid value: "foo-"`, `Invalid value: "bar.."`)
	for _, not := range []string{"safe-and-unsafe", "kernel.shmmax"} {
		if strings.Contains(err.Error(), not) {
			t.Errorf("the refusal names %s: %v", not, err)
		}
	}
	p = shell("unsafe", "true")
	p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax", Value: "8192"}}}
	s.create(p)
	s.equal("an unsafe sysctl", s.until("unsafe", "ends", ended).Status.Reason, "SysctlForbidden")
}

// TestSecurityContexts: users, groups, privileges, escalation, a read-only root.
func TestSecurityContexts(t *testing.T) {
	s := begin(t)
	at := func(name, script string, c *corev1.SecurityContext) *corev1.Pod {
		p := shell(name, script)
		p.Spec.Containers[0].SecurityContext = c
		return p
	}
	s.equal("uid", strings.TrimSpace(s.output(at("uid", "id -u", &corev1.SecurityContext{RunAsUser: ptr(int64(65534))}))), "65534")
	s.contains("ids of the container", s.output(at("ids", "id", &corev1.SecurityContext{RunAsUser: ptr(int64(1001)), RunAsGroup: ptr(int64(2002))})), "uid=1001 gid=2002")
	p := shell("podids", "id")
	p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(1001)), RunAsGroup: ptr(int64(2002)), SupplementalGroups: []int64{1234, 5678}}
	s.contains("ids of the pod", s.output(p), "uid=1001 gid=2002", "1234", "5678")
	if out := s.output(at("link", "ip link add dummy0 type dummy 2>&1 || true", &corev1.SecurityContext{Privileged: ptr(false)})); !strings.Contains(out, "Operation not permitted") {
		t.Errorf("an unprivileged container adds a link: %q", out)
	}
	s.output(at("writable", "touch /checkfile", &corev1.SecurityContext{ReadOnlyRootFilesystem: ptr(false)}))
	if out := s.output(at("readonly", "echo test >/file || true; cat /proc/1/cmdline", &corev1.SecurityContext{ReadOnlyRootFilesystem: ptr(true)})); out == "" {
		t.Error("no output of the read-only container")
	}
	s.contains("a read-only root", s.logs("readonly", ""), "Read-only file system")
	s.contains("no new privileges", s.output(at("nnp", "grep NoNewPrivs /proc/self/status", &corev1.SecurityContext{AllowPrivilegeEscalation: ptr(false), RunAsUser: ptr(int64(1000))})), "NoNewPrivs:\t1")
	s.contains("by default", s.output(at("nnp-default", "grep NoNewPrivs /proc/self/status", &corev1.SecurityContext{RunAsUser: ptr(int64(1000))})), "NoNewPrivs:\t0")

	p = at("nonroot", "true", &corev1.SecurityContext{RunAsNonRoot: ptr(true)})
	s.create(p)
	w := s.until("nonroot", "is refused", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil && p.Status.ContainerStatuses[0].State.Waiting.Reason == "CreateContainerConfigError"
	})
	s.contains("why", w.Status.ContainerStatuses[0].State.Waiting.Message, "image will run as root")
}

// TestEphemeralContainers: one, then a second.
func TestEphemeralContainers(t *testing.T) {
	s := begin(t)
	s.run(shell("target", "sleep 1000"))
	for i, name := range []string{"debugger", "debugger2"} {
		p := s.pod("target")
		p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: name, Image: busybox, Command: []string{"sh", "-c", "echo polo; sleep 1000"}, Stdin: true, TTY: true}})
		updated, err := s.client.CoreV1().Pods(s.ns).UpdateEphemeralContainers(t.Context(), p.Name, p, metav1.UpdateOptions{})
		s.must(err)
		s.equal("ephemeral containers", len(updated.Spec.EphemeralContainers), i+1)
		s.until("target", name+" runs", func(p *corev1.Pod) bool {
			return len(p.Status.EphemeralContainerStatuses) == i+1 && p.Status.EphemeralContainerStatuses[i].State.Running != nil
		})
		s.eventually(name+"'s log", func() string {
			if out := s.logs("target", name); !strings.Contains(out, "polo") {
				return out
			}
			return ""
		})
	}
}

// TestProbes: what restarts, what does not, what is never ready.
func TestProbes(t *testing.T) {
	s := begin(t)
	http := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}}
	liveness := func(name string, args []string, h corev1.ProbeHandler) *corev1.Pod {
		p := program(name, args...)
		p.Spec.RestartPolicy = corev1.RestartPolicyAlways
		p.Spec.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: h, InitialDelaySeconds: 2, PeriodSeconds: 1, FailureThreshold: 1}
		return p
	}
	grpc := func(port int32) corev1.ProbeHandler {
		return corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: port, Service: ptr("")}}
	}
	cat := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"cat", "/tmp/health"}}}
	file := func(name, script string) *corev1.Pod {
		p := liveness(name, nil, cat)
		p.Spec.Containers[0].Image, p.Spec.Containers[0].Command, p.Spec.Containers[0].Args = busybox, []string{"sh", "-c", script}, nil
		return p
	}
	for _, p := range []*corev1.Pod{
		liveness("http-restarts", []string{"liveness"}, http), liveness("grpc-restarts", []string{"grpc"}, grpc(2333)),
		file("exec-restarts", "echo ok >/tmp/health; sleep 5; rm /tmp/health; sleep 600"),
		liveness("tcp-stays", []string{"liveness"}, corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}),
		liveness("grpc-stays", []string{"grpc"}, grpc(5000)), file("exec-stays", "echo ok >/tmp/health; sleep 600"),
	} {
		s.create(p)
	}
	unready := program("unready", "liveness")
	unready.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/agnhost", "nonsense"}}}, PeriodSeconds: 1}
	s.create(unready)
	for _, service := range []string{"well", "unwell", "unknown"} {
		p := program("grpc-"+service, "grpc")
		p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 5000, Service: &service}}}
		s.create(p)
	}
	s.until("grpc-well", "is ready", ready)
	for service, why := range map[string]string{"unwell": `service unhealthy (responded with "NOT_SERVING")`, "unknown": "unknown service"} {
		s.eventually("why "+service+" is not ready", func() string {
			out := s.kubectl("get", "events", "--field-selector=reason=Unhealthy,involvedObject.name=grpc-"+service, "-o", "jsonpath={.items[*].message}")
			if !strings.Contains(out, why) {
				return out
			}
			return ""
		})
		s.equal(service+" is ready", ready(s.pod("grpc-"+service)), false)
	}
	for _, name := range []string{"http-restarts", "grpc-restarts", "exec-restarts"} {
		s.until(name, "restarts", func(p *corev1.Pod) bool {
			return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount > 0
		})
	}
	s.until("http-restarts", "restarts twice", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount > 1 })
	for _, name := range []string{"tcp-stays", "grpc-stays", "exec-stays", "unready"} {
		p := s.until(name, "runs", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning })
		s.equal(name+"'s restarts", p.Status.ContainerStatuses[0].RestartCount, 0)
		s.equal(name+" is ready", ready(p), name != "unready")
	}
	late := program("late", "liveness")
	late.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: http, InitialDelaySeconds: 5, PeriodSeconds: 1}
	p := s.run(late)
	if waited := condition(p, corev1.PodReady).LastTransitionTime.Sub(p.Status.ContainerStatuses[0].State.Running.StartedAt.Time).Seconds(); waited < 4 {
		t.Errorf("ready after %v s, before the initial delay", waited)
	}
}
