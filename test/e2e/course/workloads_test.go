package course

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestLesson02Deployment: 3 replicas kept; self-healing; pause, rollout, rollback.
func TestLesson02Deployment(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(s.lesson("02-deployment.yaml"))
	s.rolledOut("deployment/nginx-deployment")
	pods := s.waitReady("app=nginx", 3)

	gone := pods[0].Name
	s.kubectl("delete", "pod", gone, "--grace-period=1")
	for _, p := range s.waitReady("app=nginx", 3) {
		if p.Name == gone {
			t.Errorf("%s came back under its old name", gone)
		}
	}

	s.kubectl("rollout", "pause", "deployment/nginx-deployment")
	s.kubectl("set", "image", "deployment/nginx-deployment", "nginx=nginx:1.14.1")
	s.eventually("the paused change is seen", func() string {
		d, err := s.client.AppsV1().Deployments(s.ns).Get(t.Context(), "nginx-deployment", metav1.GetOptions{})
		if err != nil || d.Status.ObservedGeneration < d.Generation {
			return fmt.Sprintf("%+v, %v", d.Status, err)
		}
		return ""
	})
	if got := images(s.pods("app=nginx")); got != "nginx:1.14.2 x3" {
		t.Errorf("paused, and pods run %s", got)
	}
	s.kubectl("rollout", "resume", "deployment/nginx-deployment")
	s.rolledOut("deployment/nginx-deployment")
	if got := images(s.waitReady("app=nginx", 3)); got != "nginx:1.14.1 x3" {
		t.Errorf("rolled out, pods run %s", got)
	}

	s.kubectl("set", "image", "deployment/nginx-deployment", "nginx=nginx:1.161")
	s.eventually("the bad image is told", func() string {
		out := s.kubectl("get", "pods")
		if !strings.Contains(out, "ImagePullBackOff") && !strings.Contains(out, "ErrImagePull") {
			return out
		}
		return ""
	})
	available := s.kubectl("get", "deployment", "nginx-deployment", "-o", "jsonpath={.status.availableReplicas}")
	if available != "3" {
		t.Errorf("a bad image took replicas: %s are available", available)
	}
	history := s.kubectl("rollout", "history", "deployment/nginx-deployment")
	for _, revision := range []string{"\n1 ", "\n2 ", "\n3 "} {
		if !strings.Contains(history, revision) {
			t.Errorf("history lacks revision %s:\n%s", revision, history)
		}
	}
	s.kubectl("rollout", "undo", "deployment/nginx-deployment")
	s.rolledOut("deployment/nginx-deployment")
	if got := images(s.waitReady("app=nginx", 3)); got != "nginx:1.14.1 x3" {
		t.Errorf("rolled back, pods run %s", got)
	}
	s.kubectl("rollout", "undo", "deployment/nginx-deployment", "--to-revision=1")
	s.rolledOut("deployment/nginx-deployment")
	if got := images(s.waitReady("app=nginx", 3)); got != "nginx:1.14.2 x3" {
		t.Errorf("rolled back to revision 1, pods run %s", got)
	}
	s.kubectl("scale", "deployment/nginx-deployment", "--replicas=1")
	s.waitReady("app=nginx", 1)
}

// images says what pods run, "image xcount".
func images(pods []corev1.Pod) string {
	count := map[string]int{}
	for _, p := range pods {
		count[p.Spec.Containers[0].Image]++
	}
	var out []string
	for image, n := range count {
		out = append(out, fmt.Sprintf("%s x%d", image, n))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// TestLesson03DeploymentRolling: RollingUpdate, maxSurge 1, maxUnavailable 1, minReadySeconds 20.
func TestLesson03DeploymentRolling(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(s.lesson("03-deployment-rolling.yaml"))
	s.rolledOut("deployment/myapp")
	s.kubectl("set", "image", "deployment/myapp", "myapp=nginx:1.14.1")
	// From outside: never more than 4 pods that are not ending, never fewer than 2 ready ones, and no new pod counts as
	// available before it has been ready for 20 s.
	watch, err := s.client.CoreV1().Pods(s.ns).Watch(t.Context(), metav1.ListOptions{LabelSelector: "app=myapp"})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	done := make(chan error, 1)
	go func() {
		_, errs, err := s.c.Kubectl(t.Context(), "-n", s.ns, "rollout", "status", "deployment/myapp", "--timeout=180s")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, errs)
		}
		done <- err
	}()
	now := map[string]*corev1.Pod{}
	for running := true; running; {
		select {
		case e := <-watch.ResultChan():
			pod, ok := e.Object.(*corev1.Pod)
			if !ok {
				t.Fatalf("watch: %+v", e)
			}
			if e.Type == "DELETED" {
				delete(now, pod.Name)
				continue
			}
			now[pod.Name] = pod
			checkRolling(t, now)
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		}
	}
	if got := images(s.waitReady("app=myapp", 3)); got != "nginx:1.14.1 x3" {
		t.Errorf("rolled out, pods run %s", got)
	}
	sets, err := s.client.AppsV1().ReplicaSets(s.ns).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(sets.Items) != 2 {
		t.Fatalf("%d ReplicaSets, %v", len(sets.Items), err)
	}
}

// checkRolling checks one moment of the rollout: the first look has fewer pods, until the watch has told all of them.
func checkRolling(t *testing.T, now map[string]*corev1.Pod) {
	t.Helper()
	living, good, fresh := 0, 0, 0
	for _, p := range now {
		if p.DeletionTimestamp != nil {
			continue
		}
		living++
		if ready(p) {
			good++
		}
		if p.Spec.Containers[0].Image == "nginx:1.14.1" {
			fresh++
		}
	}
	if living > 4 {
		t.Errorf("%d pods at a time: maxSurge is 1 of 3", living)
	}
	if fresh > 0 && living >= 3 && good < 2 {
		t.Errorf("%d of %d pods ready: maxUnavailable is 1 of 3", good, living)
	}
}

// TestLesson04ReplicaSet: a pod count held.
func TestLesson04ReplicaSet(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(s.lesson("04-replicaset.yaml"))
	pods := s.waitReady("app=myapp-rs", 3)
	s.kubectl("delete", "pod", pods[0].Name, pods[1].Name, "--grace-period=1")
	s.waitReady("app=myapp-rs", 3)
	// A pod that is relabelled is let go, and another takes its place.
	s.kubectl("label", "pod", pods[2].Name, "app=mine", "--overwrite")
	s.waitReady("app=myapp-rs", 3)
	freed := s.waitReady("app=mine", 1)
	if len(freed[0].OwnerReferences) != 0 {
		t.Errorf("the relabelled pod is still owned: %+v", freed[0].OwnerReferences)
	}
	// And back: one too many.
	s.kubectl("label", "pod", pods[2].Name, "app=myapp-rs", "--overwrite")
	s.eventually("the fourth pod goes", func() string {
		if n := len(s.pods("app=myapp-rs")); n != 3 {
			return fmt.Sprint(n, " pods")
		}
		return ""
	})
	s.kubectl("delete", "rs", "myapp-rs", "--cascade=orphan")
	s.waitReady("app=myapp-rs", 3)
}

// TestLesson06DaemonSet: one pod on every eligible node.
func TestLesson06DaemonSet(t *testing.T) {
	t.Parallel()
	s := attend(t)
	s.apply(s.lesson("06-daemonset.yaml"))
	s.rolledOut("daemonset/fluentd-daemon")
	if p := s.waitReady("name=fluentd-daemon", 1)[0]; p.Spec.NodeName != s.c.NodeName {
		t.Errorf("it runs on %q", p.Spec.NodeName)
	}
	// A node that is not selected is not eligible; selected again, it is.
	s.kubectl("patch", "ds", "fluentd-daemon", "-p", `{"spec":{"template":{"spec":{"nodeSelector":{"course":"yes"}}}}}`)
	s.eventually("no node is eligible", func() string {
		if n := len(s.pods("name=fluentd-daemon")); n != 0 {
			return fmt.Sprint(n, " pods")
		}
		return ""
	})
	s.kubectl("label", "node", s.c.NodeName, "course=yes")
	t.Cleanup(func() { s.kubectlLater("label", "node", s.c.NodeName, "course-") })
	s.waitReady("name=fluentd-daemon", 1)
}
