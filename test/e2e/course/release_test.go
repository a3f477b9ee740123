package course

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

// script runs an example's script with a kubectl of the test's namespace and returns what it prints.
func (s *class) script(name string) string {
	s.t.Helper()
	keelson, err := lab.Binary()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(labtest.Lessons(s.t), name, "run.sh"))
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.c.Kubeconfig, "KUBECTL="+keelson+" kubectl -n "+s.ns)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", name, err, out)
	}
	s.t.Logf("%s:\n%s", name, out)
	return string(out)
}

// TestBlueGreen: all traffic moves at once, and back.
func TestBlueGreen(t *testing.T) {
	t.Parallel()
	want := "blue serves: blue 20\ngreen runs, blue serves: blue 20\nswitched to green: green 20\nrolled back to blue: blue 20\ngreen stays, blue is gone: green 20\n"
	if got := attend(t).script("blue-green"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestCanary: the canary's share of the traffic follows its share of the pods.
func TestCanary(t *testing.T) {
	t.Parallel()
	out := attend(t).script("canary")
	line := regexp.MustCompile(`stable (\d+) canary (\d+)`)
	found := line.FindAllStringSubmatch(out, -1)
	// Of 100 requests 20, 60 and 100 are the canary's in the mean; five standard deviations to both sides.
	for i, want := range []struct{ least, most int }{{0, 0}, {1, 40}, {36, 84}, {100, 100}} {
		if len(found) <= i {
			t.Fatalf("step %d is missing:\n%s", i, out)
		}
		stable, _ := strconv.Atoi(found[i][1])
		canary, _ := strconv.Atoi(found[i][2])
		if stable+canary != 100 || canary < want.least || canary > want.most {
			t.Errorf("step %d: %s, want %d to %d for the canary", i, found[i][0], want.least, want.most)
		}
	}
}

// steady is HTTP load through a Service: half of the workers keep their connections, half open one for each request.
type steady struct {
	stop context.CancelFunc
	wg   sync.WaitGroup
	mu   sync.Mutex
	good int
	bad  []string
}

func load(ctx context.Context, url string, workers int) *steady {
	ctx, stop := context.WithCancel(ctx)
	l := &steady{stop: stop}
	for i := range workers {
		client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: i%2 == 1, MaxIdleConnsPerHost: 1}}
		l.wg.Go(func() { // ends with ctx
			for ctx.Err() == nil {
				l.count(ask(client, url))
				time.Sleep(2 * time.Millisecond) // steady, not as fast as can be: the rollout needs the machine as well
			}
		})
	}
	return l
}

func ask(client *http.Client, url string) error {
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", answer.Status)
	}
	return nil
}

func (l *steady) count(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.good++
		return
	}
	l.bad = append(l.bad, err.Error())
}

// end stops the load and returns how many requests were answered and what the others met.
func (l *steady) end() (int, []string) {
	l.stop()
	l.wg.Wait()
	return l.good, l.bad
}

// graceful is a Deployment that leaves its clients time, with its Service.
const graceful = `apiVersion: v1
kind: Service
metadata: {name: graceful}
spec: {selector: {app: graceful}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: graceful}
spec:
  replicas: 3
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  selector: {matchLabels: {app: graceful}}
  template:
    metadata: {labels: {app: graceful}}
    spec:
      containers:
        - name: nginx
          image: nginx:1.14.2
          readinessProbe: {httpGet: {port: 80}, periodSeconds: 1}
          lifecycle: {preStop: {sleep: {seconds: 5}}}
`

// TestHostile_NW17: a rolling update under steady HTTP load through the Service loses no request, kept connections or not.
func TestHostile_NW17(t *testing.T) {
	s := attend(t)
	s.apply(graceful)
	s.rolledOut("deployment/graceful")
	url := "http://" + s.service("graceful").Spec.ClusterIP
	s.eventually("the Service answers", func() string {
		if _, err := fetch(t.Context(), url); err != nil {
			return err.Error()
		}
		return ""
	})
	l := load(context.Background(), url, 8)
	defer l.end()
	s.kubectl("set", "image", "deployment/graceful", "nginx=nginx:1.14.1")
	s.rolledOut("deployment/graceful")
	s.eventually("the old pods are gone", func() string {
		if pods := strings.Fields(s.kubectl("get", "pods", "-o", "name")); len(pods) != 3 {
			return fmt.Sprint(pods)
		}
		return ""
	})
	good, bad := l.end()
	if len(bad) > 0 || good < 100 {
		t.Errorf("%d requests answered, %d lost: %.5q", good, len(bad), bad)
	}
	t.Logf("%d requests, none lost", good)
}
