package shutdown

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/kubelet/shutdown/logindtest"
)

func pod(name string, priority int32) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Priority: &priority}}
}

func TestPlan(t *testing.T) {
	pods := []*corev1.Pod{pod("dns", systemCritical), pod("web", 0), {ObjectMeta: metav1.ObjectMeta{Name: "plain"}}, pod("low", -5), pod("db", 1000), pod("cni", systemCritical+1000)}
	for name, c := range map[string]struct {
		periods []Period
		want    string
	}{
		"the usual two":   {Periods(30*time.Second, 10*time.Second), "20s web plain low db; 10s dns cni; "},
		"by priority":     {[]Period{{systemCritical, 5 * time.Second}, {1000, 7 * time.Second}, {0, 3 * time.Second}}, "3s web plain low; 7s db; 5s dns cni; "},
		"only a high one": {[]Period{{5000, time.Second}}, "1s dns web plain low db cni; "},
		"none":            {nil, ""},
	} {
		got := ""
		for _, g := range Plan(pods, c.periods) {
			var names []string
			for _, p := range g.Pods {
				names = append(names, p.Name)
			}
			got += fmt.Sprintf("%s %s; ", g.Grace, strings.Join(names, " "))
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if fit := Fit(Periods(60*time.Second, 20*time.Second), 30*time.Second); Sum(fit) != 30*time.Second || fit[1].Grace != 10*time.Second {
		t.Errorf("fitted: %v", fit)
	}
}

// machine records what its manager does to it. Its pods end when Wait is called.
type machine struct {
	mu    sync.Mutex
	story []string
	pods  []*corev1.Pod
}

func (m *machine) note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.story = append(m.story, fmt.Sprintf(format, args...))
}

func (m *machine) Leaving(yes bool)                        { m.note("leaving %t", yes) }
func (m *machine) Pods() []*corev1.Pod                     { return m.pods }
func (m *machine) End(p *corev1.Pod, g time.Duration)      { m.note("end %s within %s", p.Name, g) }
func (m *machine) Wait(_ context.Context, p []*corev1.Pod) { m.note("wait for %d", len(p)) }

func TestManager(t *testing.T) {
	l := logindtest.Start(t, 10*time.Second)
	m := &machine{pods: []*corev1.Pod{pod("dns", systemCritical), pod("web", 0)}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { // ends with cancel
		ended <- New(Config{Bus: l.Bus, Who: "keelson", Log: slog.New(slog.DiscardHandler)}, m).Run(ctx)
	}()
	lock := receive(t, l.Locks)
	if lock.What != "shutdown" || lock.Who != "keelson" || lock.Mode != "delay" {
		t.Errorf("lock %+v", lock)
	}
	select {
	case <-lock.Released:
		t.Error("the lock was let go before any shutdown")
	default:
	}
	if err := l.Shutdown(true); err != nil {
		t.Fatal(err)
	}
	receive(t, lock.Released)
	if err := l.Shutdown(false); err != nil {
		t.Fatal(err)
	}
	again := receive(t, l.Locks)
	cancel()
	if err := receive(t, ended); err != nil {
		t.Error(err)
	}
	receive(t, again.Released)
	want := "leaving true, end web within 6s, wait for 1, end dns within 3s, wait for 1, leaving false"
	if got := strings.Join(m.story, ", "); got != want {
		t.Errorf("story: %s\nwant:  %s", got, want)
	}
}

func receive[T any](t *testing.T, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came within 20 s")
	}
	return v
}

// A machine without a bus runs its pods as ever.
func TestNoBus(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- New(Config{Bus: "unix:path=/nowhere/at/all", Who: "x", Log: slog.New(slog.DiscardHandler)}, &machine{}).Run(ctx)
	}()
	cancel()
	if err := receive(t, ended); err != nil {
		t.Error(err)
	}
}
