package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/test/lab/labtest"
)

// primary is a controller of one pod that does nothing, as upstream's tests of kubectl use it, with its Service.
const primary = `
kind: ReplicationController
apiVersion: v1
metadata: {name: agnhost-primary, labels: {app: agnhost, role: primary}}
spec:
  replicas: 1
  selector: {app: agnhost, role: primary}
  template:
    metadata: {labels: {app: agnhost, role: primary}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: agnhost-primary, image: "` + agnhost + `", args: [pause], ports: [{name: agnhost-server, containerPort: 6379}]}]}
---
kind: Service
apiVersion: v1
metadata: {name: agnhost-primary, labels: {app: agnhost, role: primary}}
spec: {selector: {app: agnhost, role: primary}, ports: [{port: 6379, targetPort: agnhost-server}]}`

func (a *admin) primary(t *testing.T) (ns, pod string) {
	t.Helper()
	ns = a.namespace(t, "kubectl")
	if out, err := a.kubectlIn(ns, primary, "create", "-f", "-"); err != nil {
		t.Fatal(out)
	}
	pod = a.pods(t, ns, "app=agnhost", 1).Items[0].Name
	a.kubectl(t, ns, "wait", "--for=condition=Ready", "pod/"+pod, "--timeout=60s")
	return ns, pod
}

// lines wants, one line after another, each with all of its words.
func lines(t *testing.T, output string, wanted ...[]string) {
	t.Helper()
	left := strings.Split(output, "\n")
	for _, words := range wanted {
		for len(left) > 0 && !strings.Contains(left[0], words[0]) {
			left = left[1:]
		}
		if len(left) == 0 {
			t.Fatalf("no %q where it should be in:\n%s", words[0], output)
		}
		for _, w := range words[1:] {
			if !strings.Contains(left[0], w) {
				t.Errorf("%q has no %q", left[0], w)
			}
		}
	}
}

// kubectl describes a pod, a controller, a Service, a node, a namespace and a CronJob as people read them.
//
// Upstream's titles: Kubectl describe should check if kubectl describe prints relevant information for rc and pods; ... for cronjob.
func TestKubectlDescribe(t *testing.T) {
	a := cluster(t)
	ns, pod := a.primary(t)
	lines(t, a.kubectl(t, ns, "describe", "pod", pod), []string{"Name:", "agnhost-primary-"}, []string{"Namespace:", ns}, []string{"Node:"}, []string{"Labels:", "app=agnhost"}, []string{"role=primary"},
		[]string{"Annotations:"}, []string{"Status:", "Running"}, []string{"IP:"}, []string{"Controlled By:", "ReplicationController/agnhost-primary"}, []string{"Image:", agnhost}, []string{"State:", "Running"}, []string{"QoS Class:", "BestEffort"})
	lines(t, a.kubectl(t, ns, "describe", "rc", "agnhost-primary"), []string{"Name:", "agnhost-primary"}, []string{"Namespace:", ns}, []string{"Selector:", "app=agnhost,role=primary"}, []string{"Labels:", "app=agnhost"}, []string{"role=primary"},
		[]string{"Annotations:"}, []string{"Replicas:", "1 current", "1 desired"}, []string{"Pods Status:", "1 Running", "0 Waiting", "0 Succeeded", "0 Failed"}, []string{"Pod Template:"}, []string{"Image:", agnhost}, []string{"Events:"})
	lines(t, a.kubectl(t, ns, "describe", "service", "agnhost-primary"), []string{"Name:", "agnhost-primary"}, []string{"Namespace:", ns}, []string{"Labels:", "app=agnhost"}, []string{"role=primary"}, []string{"Annotations:"},
		[]string{"Selector:", "app=agnhost", "role=primary"}, []string{"Type:", "ClusterIP"}, []string{"IP:"}, []string{"Port:", "<unset>", "6379/TCP"}, []string{"Endpoints:"}, []string{"Session Affinity:", "None"})
	node := must(a.CoreV1().Nodes().List(ctx, metav1.ListOptions{}))(t).Items[0].Name
	lines(t, a.kubectl(t, ns, "describe", "node", node), []string{"Name:", node}, []string{"Labels:"}, []string{"Annotations:"}, []string{"CreationTimestamp:"}, []string{"Conditions:"}, []string{"Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"},
		[]string{"Addresses:"}, []string{"Capacity:"}, []string{"Version:"}, []string{"Kernel Version:"}, []string{"OS Image:"}, []string{"Container Runtime Version:"}, []string{"Kubelet Version:"}, []string{"Pods:"})
	lines(t, a.kubectl(t, ns, "describe", "namespace", ns), []string{"Name:", ns}, []string{"Labels:"}, []string{"Annotations:"}, []string{"Status:", "Active"})
	a.kubectl(t, ns, "create", "cronjob", "cronjob-test", "--schedule=*/1 * * * *", "--image="+busybox)
	lines(t, a.kubectl(t, ns, "describe", "cronjob", "cronjob-test"), []string{"Name:", "cronjob-test"}, []string{"Namespace:", ns}, []string{"Labels:"}, []string{"Annotations:"}, []string{"Schedule:", "*/1 * * * *"}, []string{"Concurrency Policy:", "Allow"},
		[]string{"Suspend:", "False"}, []string{"Successful Job History Limit:", "3"}, []string{"Failed Job History Limit:", "1"}, []string{"Starting Deadline Seconds:"}, []string{"Selector:"}, []string{"Parallelism:"}, []string{"Completions:"})
}

// kubectl exposes a controller and then the Service, labels and annotates, scales, replaces, tries without doing, and shows differences.
//
// Upstream's titles: Kubectl expose should create services for rc; Kubectl label should update the label on a resource; Kubectl patch should
// add annotations for pods in rc; Update Demo should create and stop a replication controller; should scale a replication controller; Kubectl
// replace should update a single-container pod's image; Kubectl server-side dry-run should check if kubectl can dry-run update Pods; Kubectl
// diff should check if kubectl diff finds a difference for Deployments; Kubectl run pod should create a pod from an image when restart is Never.
func TestKubectlChanges(t *testing.T) {
	a := cluster(t)
	ns, pod := a.primary(t)
	exposed := func(name string, port int32) {
		t.Helper()
		s := must(a.CoreV1().Services(ns).Get(ctx, name, metav1.GetOptions{}))(t)
		if len(s.Spec.Ports) != 1 || s.Spec.Ports[0].Port != port || s.Spec.Ports[0].TargetPort.IntValue() != 6379 {
			t.Errorf("%s: %v", name, s.Spec.Ports)
		}
		labtest.Eventually(t, "endpoints of "+name, func() string {
			slices := must(a.DiscoveryV1().EndpointSlices(ns).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + name}))(t).Items
			if len(slices) != 1 || len(slices[0].Endpoints) != 1 || len(slices[0].Ports) != 1 || *slices[0].Ports[0].Port != 6379 {
				return fmt.Sprint(slices)
			}
			return ""
		})
	}
	a.kubectl(t, ns, "expose", "rc", "agnhost-primary", "--name=rm2", "--port=1234", "--target-port=6379")
	exposed("rm2", 1234)
	a.kubectl(t, ns, "expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=6379")
	exposed("rm3", 2345)

	a.kubectl(t, ns, "label", "pods", pod, "testing-label=testing-label-value")
	if out := a.kubectl(t, ns, "get", "pod", pod, "-L", "testing-label"); !strings.Contains(out, "testing-label-value") {
		t.Error(out)
	}
	a.kubectl(t, ns, "label", "pods", pod, "testing-label-")
	if out := a.kubectl(t, ns, "get", "pod", pod, "-L", "testing-label"); strings.Contains(out, "testing-label-value") {
		t.Error(out)
	}
	a.kubectl(t, ns, "patch", "pod", pod, "-p", `{"metadata":{"annotations":{"x":"y"}}}`)
	if p := must(a.CoreV1().Pods(ns).Get(ctx, pod, metav1.GetOptions{}))(t); p.Annotations["x"] != "y" {
		t.Error(p.Annotations)
	}
	for _, n := range []int{2, 1} {
		a.kubectl(t, ns, "scale", "rc", "agnhost-primary", fmt.Sprint("--replicas=", n), "--timeout=5m")
		out := a.kubectl(t, ns, "get", "pods", "-o", "template", `--template={{range.items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}`, "-l", "app=agnhost")
		if len(strings.Fields(out)) != n {
			t.Errorf("%d replicas: %s", n, out)
		}
	}
	imageIs := func(image string) {
		t.Helper()
		if p := must(a.CoreV1().Pods(ns).Get(ctx, "e2e-test-httpd-pod", metav1.GetOptions{}))(t); len(p.Spec.Containers) != 1 || p.Spec.Containers[0].Image != image {
			t.Errorf("%v, want %s", p.Spec.Containers, image)
		}
	}
	a.kubectl(t, ns, "run", "e2e-test-httpd-pod", "--image="+httpd, "--pod-running-timeout=2m0s", "--labels=run=e2e-test-httpd-pod")
	a.kubectl(t, ns, "wait", "--for=jsonpath={.status.phase}=Running", "pod/e2e-test-httpd-pod", "--timeout=60s")
	a.kubectl(t, ns, "patch", "pod", "e2e-test-httpd-pod", "-p", `{"spec":{"containers":[{"name":"e2e-test-httpd-pod","image":"`+busybox+`"}]}}`, "--dry-run=server")
	imageIs(httpd)
	labtest.Eventually(t, "replace", func() string { // the kubelet may write the status in between
		text := a.kubectl(t, ns, "get", "pod", "e2e-test-httpd-pod", "-o", "json")
		out, err := a.kubectlIn(ns, strings.Replace(text, httpd, busybox, 1), "replace", "-f", "-")
		if err != nil {
			return out
		}
		return ""
	})
	imageIs(busybox)
	a.kubectl(t, ns, "delete", "pods", "e2e-test-httpd-pod", "--grace-period=0", "--force")
	a.kubectl(t, ns, "run", "e2e-test-httpd-pod", "--restart=Never", "--pod-running-timeout=2m0s", "--image="+httpd)
	imageIs(httpd)
	if p := must(a.CoreV1().Pods(ns).Get(ctx, "e2e-test-httpd-pod", metav1.GetOptions{}))(t); p.Spec.RestartPolicy != corev1.RestartPolicyNever {
		t.Error(p.Spec.RestartPolicy)
	}
	deployment := "{kind: Deployment, apiVersion: apps/v1, metadata: {name: httpd-deployment}, spec: {replicas: 0, selector: {matchLabels: {app: httpd}}, template: {metadata: {labels: {app: httpd}}, spec: {containers: [{name: httpd, image: IMAGE}]}}}}"
	if out, err := a.kubectlIn(ns, strings.Replace(deployment, "IMAGE", httpd, 1), "create", "-f", "-"); err != nil {
		t.Fatal(out)
	}
	out, err := a.kubectlIn(ns, strings.Replace(deployment, "IMAGE", busybox, 1), "diff", "-f", "-")
	if err == nil || !strings.Contains(out, httpd) || !strings.Contains(out, busybox) {
		t.Errorf("diff: %v %s", err, out)
	}
}

// kubectl filters a log by lines, bytes and time.
//
// Upstream's titles: Kubectl logs should be able to retrieve and filter logs; should log default container if not specified.
func TestKubectlLogs(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "logs")
	a.kubectl(t, ns, "run", "logs-generator", "--image="+agnhost, "--restart=Never", "--pod-running-timeout=2m0s", "--", "logs-generator", "--log-lines-total", "100", "--run-duration", "20s")
	logs := func(args ...string) string {
		return a.kubectl(t, ns, append([]string{"logs", "logs-generator", "logs-generator"}, args...)...)
	}
	labtest.Eventually(t, "lines", func() string {
		if out, _, err := shared.Kubectl(ctx, "--namespace="+ns, "logs", "logs-generator"); err != nil || !strings.Contains(out, "/api/v1/namespaces/kube-system") {
			return fmt.Sprint(out, err)
		}
		return ""
	})
	if out := logs("--tail=1"); strings.Count(out, "\n") != 1 {
		t.Errorf("one line: %q", out)
	}
	if out := logs("--limit-bytes=1"); len(out) != 1 {
		t.Errorf("one byte: %q", out)
	}
	out := logs("--tail=1", "--timestamps")
	stamp, rest, _ := strings.Cut(out, " ")
	if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil || rest == "" || strings.Count(out, "\n") != 1 {
		t.Errorf("stamped: %q %v", out, err)
	}
	labtest.Eventually(t, "a second's lines are fewer than a day's", func() string {
		recent, older := strings.Count(logs("--since=1s"), "\n"), strings.Count(logs("--since=24h"), "\n")
		if recent >= older {
			return fmt.Sprint(recent, " and ", older)
		}
		return ""
	})
	two := `{kind: Pod, apiVersion: v1, metadata: {name: two, annotations: {kubectl.kubernetes.io/default-container: container-2}}, spec: {restartPolicy: Never, containers: [
  {name: container-1, image: "` + agnhost + `", args: [logs-generator, --log-lines-total=10, --run-duration=1s]}, {name: container-2, image: "` + agnhost + `", args: [logs-generator, --log-lines-total=20, --run-duration=1s]}]}}`
	if out, err := a.kubectlIn(ns, two, "create", "-f", "-"); err != nil {
		t.Fatal(out)
	}
	a.kubectl(t, ns, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/two", "--timeout=60s")
	for want, args := range map[int][]string{10: {"-c", "container-1"}, 30: {"--all-containers"}, 20: nil} {
		if n := strings.Count(a.kubectl(t, ns, append([]string{"logs", "two"}, args...)...), "\n"); n != want {
			t.Errorf("logs %v: %d lines, want %d", args, n, want)
		}
	}
}

// kubectl says versions and where the cluster is, and proxies at a port of its choice and at a socket.
//
// Upstream's titles: Kubectl api-versions should check if v1 is in available api versions; Kubectl cluster-info ...; Kubectl version should
// check is all data is printed; Proxy server should support proxy with --port 0; should support --unix-socket=/path; cluster-info dump succeeds.
func TestKubectlTells(t *testing.T) {
	a := cluster(t)
	if out := a.kubectl(t, "default", "api-versions"); !strings.Contains("\n"+out, "\nv1\n") {
		t.Error(out)
	}
	out := a.kubectl(t, "default", "cluster-info")
	if !strings.Contains(out, "Kubernetes control plane") || !strings.Contains(out, "is running at") {
		t.Error(out)
	}
	out = a.kubectl(t, "default", "version")
	for _, item := range []string{"Client Version: ", "Server Version: "} {
		if !regexp.MustCompile(item + `v\d\.\d+\.[\d\w\-\.\+]+`).MatchString(out) {
			t.Errorf("%s: %s", item, out)
		}
	}
	a.kubectl(t, "default", "cluster-info", "dump")
	_, port := a.proxy(t, "-p", "0", "--disable-filter")
	answer := labtest.Get(t, "http://localhost:"+port+"/api/")
	var versions metav1.APIVersions
	if err := json.Unmarshal([]byte(answer), &versions); err != nil || len(versions.Versions) < 1 {
		t.Errorf("%s %v", answer, err)
	}
	socket := filepath.Join(t.TempDir(), "test")
	a.proxy(t, "--unix-socket="+socket, "--accept-hosts=^unused$")
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	response := must(client.Get("http://unused/api"))(t)
	defer response.Body.Close()
	if body := must(io.ReadAll(response.Body))(t); !strings.Contains(string(body), `"v1"`) {
		t.Errorf("%s", body)
	}
}

// proxy starts kubectl proxy and returns what it says first, and the port in it.
func (a *admin) proxy(t *testing.T, args ...string) (said, port string) {
	t.Helper()
	cmd := shared.KubectlCommand(ctx, append([]string{"proxy"}, args...)...)
	out := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	said = must(bufio.NewReader(out).ReadString('\n'))(t)
	if m := regexp.MustCompile(`Starting to serve on 127.0.0.1:([0-9]+)`).FindStringSubmatch(said); m != nil {
		port = m[1]
		_ = must(strconv.Atoi(port))(t)
	}
	return said, port
}

// An application of three tiers is made by kubectl, answers by the Service proxy, keeps what is written, and goes.
//
// Upstream's title: Guestbook application should create and stop a working application.
func TestGuestbook(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "guestbook")
	tier := func(name, role string, replicas, port, target int) string {
		return fmt.Sprintf(`
kind: Deployment
apiVersion: apps/v1
metadata: {name: %[1]s}
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: guestbook, tier: %[1]s}}
  template:
    metadata: {labels: {app: guestbook, tier: %[1]s}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: "%[6]s", args: [guestbook, --role=%[2]s, --http-port=%[5]d], resources: {requests: {cpu: 10m, memory: 10Mi}}}]}
---
kind: Service
apiVersion: v1
metadata: {name: %[1]s, labels: {app: guestbook}}
spec: {selector: {app: guestbook, tier: %[1]s}, ports: [{port: %[4]d, targetPort: %[5]d}]}
---`, name, role, replicas, port, target, agnhost)
	}
	manifest := tier("frontend", "frontend", 3, 80, 80) + tier("agnhost-primary", "primary", 1, 6379, 6379) + tier("agnhost-replica", "replica", 2, 6379, 6379)
	if out, err := a.kubectlIn(ns, manifest, "create", "-f", "-"); err != nil {
		t.Fatal(out)
	}
	answers := func(cmd, value, want string) {
		t.Helper()
		labtest.Eventually(t, "guestbook "+cmd, func() string {
			got, err := a.CoreV1().RESTClient().Get().Namespace(ns).Resource("services").SubResource("proxy").Name("frontend").Suffix("/guestbook").
				Param("cmd", cmd).Param("key", "messages").Param("value", value).Do(ctx).Raw()
			if err != nil || string(got) != want {
				return fmt.Sprint(string(got), err)
			}
			return ""
		})
	}
	answers("get", "", `{"data":""}`)
	answers("set", "TestEntry", `{"message":"Updated"}`)
	answers("get", "", `{"data":"TestEntry"}`)
	if out, err := a.kubectlIn(ns, manifest, "delete", "--grace-period=0", "--force", "-f", "-"); err != nil {
		t.Error(out)
	}
	a.pods(t, ns, "app=guestbook", 0)
}

// kubectl runs, attaches with an input, execs, copies, evicts taints, waits for what is not, and shows a pod's events.
//
// Upstream's titles: Simple pod should support exec, exec through kubectl proxy, inline execution and attach, exit codes, port-forward;
// Kubectl copy should copy a file from a running Pod; Kubectl taint (two); Kubectl events; Kubectl create quota (three); kubectl wait should ignore not found error with --for=delete; kubectl subresource flag; Kubectl prune with applyset.
func TestKubectlRuns(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "runs")
	run := func(in string, args ...string) string {
		t.Helper()
		short, cancel := context.WithTimeout(ctx, labtest.Patience)
		defer cancel()
		out, errs, err := shared.KubectlIn(short, strings.NewReader(in), append([]string{"--namespace=" + ns}, args...)...)
		if err != nil {
			t.Errorf("kubectl %v: %v %s%s", args, err, out, errs)
		}
		return out
	}
	run("abcd1234", "run", "run-test", "--image="+busybox, "--restart=Never", "--pod-running-timeout=2m0s", "--attach=true", "--stdin", "--", "sh", "-c", "echo -n read: && cat && echo 'stdin closed'")
	if out := run("", "logs", "run-test"); !strings.Contains(out, "read:abcd1234stdin closed") { // what was written before the attach is in the log alone
		t.Errorf("run with an input: %s", out)
	}
	if out := run("abcd1234", "run", "run-test-2", "--image="+busybox, "--restart=Never", "--pod-running-timeout=2m0s", "--attach=true", "--leave-stdin-open=true", "--", "sh", "-c", "cat && echo 'stdin closed'"); strings.Contains(out, "abcd1234") || !strings.Contains(out, "stdin closed") {
		t.Errorf("run without an input: %s", out)
	}
	if out := run("abcd1234", "run", "run-rm", "--image="+busybox, "--rm=true", "--restart=Never", "--attach=true", "--stdin", "--", "sh", "-c", "cat && echo 'stdin closed'"); !strings.Contains(out, "abcd1234stdin closed") || !strings.Contains(out, `pod "run-rm" deleted`) {
		t.Errorf("run --rm: %s", out)
	}
	out, _, err := shared.Kubectl(ctx, "--namespace="+ns, "run", "fails", "--image="+busybox, "--restart=Never", "--pod-running-timeout=2m0s", "--attach", "--", "sh", "-c", "exit 42")
	if err == nil || !strings.Contains(err.Error(), "exit status 42") {
		t.Errorf("exit code: %v %s", err, out)
	}
	a.start(t, ns, sleeper("busybox1", "default"))
	if out := run("", "exec", "busybox1", "--", "sh", "-c", "mkdir -p /root/foo/bar && echo foobar > /root/foo/bar/foo.bar && echo running in container"); strings.TrimSpace(out) != "running in container" {
		t.Errorf("exec: %q", out)
	}
	_, port := a.proxy(t, "-p", "0", "--disable-filter")
	if out := run("", "--server=http://127.0.0.1:"+port, "exec", "busybox1", "--", "echo", "running through the proxy"); !strings.Contains(out, "through the proxy") {
		t.Errorf("exec through a proxy: %q", out)
	}
	copied := filepath.Join(t.TempDir(), "copied")
	run("", "cp", "busybox1:/root/foo/bar/foo.bar", copied)
	if got := must(readFile(copied))(t); got != "foobar\n" {
		t.Errorf("copied %q", got)
	}
	if out := strings.Join(strings.Fields(run("", "events", "--for=pod/busybox1")), " "); !strings.Contains(out, "Normal Scheduled Pod/busybox1") {
		t.Errorf("events: %s", out)
	}
	run("", "wait", "--for=delete", "pod/doesnotexist")
	run("", "wait", "--for=delete", "pod", "--selector=app.kubernetes.io/name=noexist")
	run("", "create", "quota", "scopes", "--hard=pods=1000000", "--scopes=BestEffort,NotTerminating")
	if q := must(a.CoreV1().ResourceQuotas(ns).Get(ctx, "scopes", metav1.GetOptions{}))(t); len(q.Spec.Scopes) != 2 {
		t.Errorf("%v", q.Spec)
	}
	if out := labtest.Refused(t, shared, "", "get", "nodes", "--subresource=status"); !strings.Contains(out, "subresource cannot be used when bulk resources are specified") {
		t.Error(out)
	}
	node := must(a.CoreV1().Nodes().List(ctx, metav1.ListOptions{}))(t).Items[0].Name
	for _, taint := range []string{"=testing-taint-value:PreferNoSchedule", "=other-value:PreferNoSchedule"} {
		run("", "taint", "nodes", "--overwrite", node, "kubernetes.io/e2e-taint-key"+taint)
		lines(t, run("", "describe", "node", node), []string{"Name:", node}, []string{"Taints:", "kubernetes.io/e2e-taint-key" + taint})
	}
	run("", "taint", "nodes", node, "kubernetes.io/e2e-taint-key-")
	if out := run("", "describe", "node", node); strings.Contains(out, "e2e-taint-key") {
		t.Error(out)
	}
	apply := func(names ...string) {
		var docs []string
		for _, n := range names {
			docs = append(docs, "{kind: ConfigMap, apiVersion: v1, metadata: {name: "+n+", namespace: "+ns+", labels: {pruned: here}}}")
		}
		cmd := shared.KubectlCommand(ctx, "--namespace="+ns, "apply", "--prune", "--applyset=applyset1", "-f", "-")
		cmd.Env = append(cmd.Env, "KUBECTL_APPLYSET=true")
		cmd.Stdin = strings.NewReader(strings.Join(docs, "\n---\n"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("apply: %s", out)
		}
		if list := must(a.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{LabelSelector: "pruned=here"}))(t); len(list.Items) != len(names) {
			t.Errorf("applied %v, there are %d", names, len(list.Items))
		}
	}
	apply("cm1", "cm2")
	apply("cm1")
	apply("cm1")
}
