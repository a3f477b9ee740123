package course

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// kill ends the server with SIGKILL and starts it again. Only for tests that do not run beside others.
func (s *class) kill() {
	s.t.Helper()
	if err := s.c.Kill(); err != nil {
		s.t.Fatal(err)
	}
	if err := s.c.Start(); err != nil {
		s.t.Fatal(err)
	}
	if err := s.c.WaitReady(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// unharmed checks that no pod's containers were started twice.
func unharmed(t *testing.T, pods []corev1.Pod) {
	t.Helper()
	for _, p := range pods {
		for _, c := range p.Status.ContainerStatuses {
			if c.RestartCount != 0 {
				t.Errorf("%s was restarted %d times: %+v", p.Name, c.RestartCount, c.LastTerminationState)
			}
		}
	}
}

// TestKilledInRollout: kill -9 in the middle of a rollout, after which it goes on as if nothing had happened.
func TestKilledInRollout(t *testing.T) {
	s := attend(t)
	s.apply(strings.ReplaceAll(s.lesson("02-deployment.yaml"), "replicas: 3", "replicas: 6"))
	s.rolledOut("deployment/nginx-deployment")
	s.kubectl("set", "image", "deployment/nginx-deployment", "nginx=nginx:1.14.1")
	s.eventually("the rollout is in its middle", func() string {
		d, err := s.client.AppsV1().Deployments(s.ns).Get(t.Context(), "nginx-deployment", metav1.GetOptions{})
		if err != nil || d.Status.UpdatedReplicas < 2 {
			return fmt.Sprintf("%d updated, %v", d.Status.UpdatedReplicas, err)
		}
		return ""
	})
	s.kill()
	s.rolledOut("deployment/nginx-deployment")
	pods := s.waitReady("app=nginx", 6)
	if got := images(pods); got != "nginx:1.14.1 x6" {
		t.Errorf("rolled out, pods run %s", got)
	}
	unharmed(t, pods)
	sets, err := s.client.AppsV1().ReplicaSets(s.ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, rs := range sets.Items {
		if n := *rs.Spec.Replicas; n != 0 && n != 6 {
			t.Errorf("ReplicaSet %s has %d replicas", rs.Name, n)
		}
	}
	if len(sets.Items) != 2 {
		t.Errorf("%d ReplicaSets", len(sets.Items))
	}
}

// set is a StatefulSet without claims.
const set = `apiVersion: v1
kind: Service
metadata: {name: set}
spec: {clusterIP: None, selector: {app: set}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: set}
spec:
  serviceName: set
  replicas: 1
  selector: {matchLabels: {app: set}}
  template:
    metadata: {labels: {app: set}}
    spec: {containers: [{name: c, image: "keelson.dev/hello:v1", readinessProbe: {httpGet: {port: 80}, periodSeconds: 1}}]}
`

// TestKilledInScaling: kill -9 in the middle of a StatefulSet's scaling, up and down.
func TestKilledInScaling(t *testing.T) {
	s := attend(t)
	s.apply(set)
	first := s.waitReady("app=set", 1)[0]
	s.kubectl("scale", "statefulset/set", "--replicas=5")
	s.eventually("the third pod comes", func() string { return fewer(s.pods("app=set"), 3) })
	s.kill()
	pods := s.waitReady("app=set", 5)
	unharmed(t, pods)
	named := map[string]corev1.Pod{}
	for _, p := range pods {
		named[p.Name] = p
	}
	for i := range 5 {
		if _, ok := named[fmt.Sprint("set-", i)]; !ok {
			t.Fatalf("no set-%d among %d pods", i, len(pods))
		}
	}
	if named["set-0"].UID != first.UID {
		t.Error("set-0 is another pod")
	}
	for i := 1; i < 5; i++ { // in order: each was made only once the one before was ready
		before, p := named[fmt.Sprint("set-", i-1)], named[fmt.Sprint("set-", i)]
		if at := readySince(&before); p.CreationTimestamp.Before(&at) {
			t.Errorf("%s was made at %v, %s ready at %v", p.Name, p.CreationTimestamp, before.Name, at)
		}
	}
	s.kubectl("scale", "statefulset/set", "--replicas=1")
	s.eventually("some have gone", func() string {
		if n := len(s.pods("app=set")); n > 4 {
			return fmt.Sprint(n, " pods")
		}
		return ""
	})
	s.kill()
	if left := s.waitReady("app=set", 1); left[0].UID != first.UID {
		t.Errorf("%s is left", left[0].Name)
	}
	unharmed(t, s.pods("app=set"))
}

func fewer(pods []corev1.Pod, n int) string {
	if len(pods) < n {
		return fmt.Sprint(len(pods), " pods")
	}
	return ""
}

func readySince(p *corev1.Pod) metav1.Time {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.LastTransitionTime
		}
	}
	return metav1.Time{}
}
