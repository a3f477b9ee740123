package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// TestLesson01Pod: one nginx container runs; killed, it comes back as specified.
func TestLesson01Pod(t *testing.T) {
	c := cluster(t)
	apply(t, c, lesson(t, "01-pod.yaml"))
	waitPod(t, c, "nginx", "condition=Ready")
	wide := kubectl(t, c, "get", "pods", "-o", "wide")
	if !strings.Contains(wide, "Running") || !strings.Contains(wide, c.NodeName) {
		t.Errorf("get pods -o wide:\n%s", wide)
	}
	ip := kubectl(t, c, "get", "pod", "nginx", "-o", "jsonpath={.status.podIP}")
	if body := get(t, "http://"+ip); !strings.Contains(body, "nginx") {
		t.Errorf("nginx answers %q", body)
	}
	eventually(t, "the pod's story is told", func() string {
		describe := kubectl(t, c, "describe", "pod", "nginx")
		for _, want := range []string{"Scheduled", "Successfully assigned default/nginx to " + c.NodeName, "Pulling image", "Successfully pulled image", "Created", "Started"} {
			if !strings.Contains(describe, want) {
				return fmt.Sprintf("describe lacks %q:\n%s", want, describe)
			}
		}
		return ""
	})
	kubectl(t, c, "exec", "nginx", "--", "sh", "-c", "kill 1")
	eventually(t, "nginx comes back", func() string {
		status := kubectl(t, c, "get", "pod", "nginx", "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
		if status != "1 true" {
			return "restarts and readiness: " + status
		}
		return ""
	})
	kubectl(t, c, "delete", "pod", "nginx", "--grace-period=2")
	if out := kubectl(t, c, "get", "pods"); strings.Contains(out, "nginx") {
		t.Errorf("nginx is still there:\n%s", out)
	}
}

// TestLesson11EmptyDir: shared by the pod's containers, gone with the pod.
func TestLesson11EmptyDir(t *testing.T) {
	c := cluster(t)
	apply(t, c, lesson(t, "11-volume-emptydir.yaml"))
	waitPod(t, c, "test-pd-emptydir", "condition=Ready")
	uid := kubectl(t, c, "get", "pod", "test-pd-emptydir", "-o", "jsonpath={.metadata.uid}")
	kubectl(t, c, "exec", "test-pd-emptydir", "--", "sh", "-c", "echo kept > /cache/file")
	dir := filepath.Join(c.Dir, "kubelet", "pods", uid, "volumes", "kubernetes.io~empty-dir", "cache-volume")
	if data, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(data) != "kept\n" {
		t.Errorf("the volume on the node: %q, %v", data, err)
	}
	kubectl(t, c, "delete", "pod", "test-pd-emptydir", "--grace-period=1")
	eventually(t, "the volume goes with the pod", func() string {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			return fmt.Sprint(dir, " is there: ", err)
		}
		return ""
	})
}

// TestLesson12HostPath: type Directory must exist already.
func TestLesson12HostPath(t *testing.T) {
	c := cluster(t)
	dir := filepath.Join(t.TempDir(), "data")
	apply(t, c, strings.ReplaceAll(lesson(t, "12-volume-hostpath.yaml"), "path: /data", "path: "+dir))
	eventually(t, "the missing directory is named", func() string {
		events := kubectl(t, c, "get", "events", "--field-selector", "involvedObject.name=test-pd-hostpath")
		if !strings.Contains(events, "FailedMount") || !strings.Contains(events, "is not a directory") {
			return events
		}
		return ""
	})
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	waitPod(t, c, "test-pd-hostpath", "condition=Ready")
	if got := kubectl(t, c, "exec", "test-pd-hostpath", "--", "cat", "/test-pd/file"); got != "of the host" {
		t.Errorf("the pod reads %q", got)
	}
}

// TestLesson13ConfigMap: only the named key is projected; a change reaches the file.
func TestLesson13ConfigMap(t *testing.T) {
	c := cluster(t)
	apply(t, c, lesson(t, "13-volume-configmap.yaml"))
	waitPod(t, c, "configmap-pod", "condition=Ready")
	if got := kubectl(t, c, "exec", "configmap-pod", "--", "cat", "/etc/config/log_level"); got != "debug" {
		t.Errorf("the file holds %q, want debug", got)
	}
	if got := kubectl(t, c, "exec", "configmap-pod", "--", "ls", "/etc/config"); strings.TrimSpace(got) != "log_level" {
		t.Errorf("projected: %q, want log_level alone", got)
	}
	kubectl(t, c, "patch", "configmap", "log-config", "-p", `{"data":{"log_level":"info"}}`)
	eventually(t, "the change reaches the file", func() string {
		if got := kubectl(t, c, "exec", "configmap-pod", "--", "cat", "/etc/config/log_level"); got != "info" {
			return "the file holds " + got
		}
		return ""
	})
}

// TestLesson14Secret: base64 data, mounted decoded, on tmpfs.
func TestLesson14Secret(t *testing.T) {
	c := cluster(t)
	apply(t, c, lesson(t, "14-secret.yaml")+`---
apiVersion: v1
kind: Pod
metadata: {name: secret-pod}
spec:
  containers:
    - name: test
      image: busybox:1.28
      command: ["sleep", "3600"]
      env: [{name: LANGUAGE, valueFrom: {secretKeyRef: {name: hello-secret, key: language}}}]
      volumeMounts: [{name: s, mountPath: /etc/secret, readOnly: true}]
  volumes: [{name: s, secret: {secretName: hello-secret}}]
`)
	waitPod(t, c, "secret-pod", "condition=Ready")
	if got := kubectl(t, c, "exec", "secret-pod", "--", "sh", "-c", "cat /etc/secret/language; echo; echo $LANGUAGE; grep /etc/secret /proc/mounts"); !strings.HasPrefix(got, "password\npassword\ntmpfs /etc/secret tmpfs ro") {
		t.Errorf("the secret in the pod: %q", got)
	}
}

// TestServiceAccountToken: a pod finds its credentials and the API server believes them.
func TestServiceAccountToken(t *testing.T) {
	c := cluster(t)
	apply(t, c, `apiVersion: v1
kind: Pod
metadata: {name: caller}
spec:
  containers: [{name: c, image: "busybox:1.28", command: ["sleep", "3600"]}]
`)
	waitPod(t, c, "caller", "condition=Ready")
	dir := "/var/run/secrets/kubernetes.io/serviceaccount/"
	out := kubectl(t, c, "exec", "caller", "--", "sh", "-c", "cat "+dir+"namespace; echo; head -c 27 "+dir+"ca.crt; echo; cat "+dir+"token")
	parts := strings.SplitN(out, "\n", 3)
	if len(parts) != 3 || parts[0] != "default" || parts[1] != "-----BEGIN CERTIFICATE-----" {
		t.Fatalf("the mounted account: %q", out)
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	as := rest.AnonymousClientConfig(config)
	as.BearerToken = parts[2]
	client, err := kubernetes.NewForConfig(as)
	if err != nil {
		t.Fatal(err)
	}
	who, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || who.Status.UserInfo.Username != "system:serviceaccount:default:default" {
		t.Errorf("the token is %+v's, %v", who.Status.UserInfo, err)
	}
	if _, err := client.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("the default account lists Secrets: %v", err)
	}
}
