package pull

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/kubelettest"
)

type secrets map[string]*corev1.Secret

func (s secrets) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if x := s[name]; x != nil {
		return x, nil
	}
	return nil, errors.New("not found")
}

type events struct{ all []string }

func (e *events) ContainerEvent(_ *corev1.Pod, _, _, reason, format string, args ...any) {
	e.all = append(e.all, reason+" "+fmt.Sprintf(format, args...))
}

func ensure(t *testing.T, p *Puller, image string, policy corev1.PullPolicy) (string, error) {
	t.Helper()
	return p.Ensure(t.Context(), &corev1.Pod{}, &corev1.Container{Name: "c", Image: image, ImagePullPolicy: policy}, &runtimeapi.PodSandboxConfig{})
}

func TestPolicies(t *testing.T) {
	rt, conn := kubelettest.New(t)
	ev := &events{}
	p := New(Config{Parallel: 1}, criclient.New(conn), secrets{}, ev)
	reason := func(err error) string {
		if f := (*Failure)(nil); errors.As(err, &f) {
			return f.Reason
		}
		return fmt.Sprint(err)
	}
	if _, err := ensure(t, p, "nginx:1", corev1.PullNever); reason(err) != "ErrImageNeverPull" {
		t.Errorf("Never, absent: %v", err)
	}
	for range 2 {
		if ref, err := ensure(t, p, "nginx:1", corev1.PullIfNotPresent); err != nil || !strings.HasPrefix(ref, "sha256:") {
			t.Errorf("IfNotPresent: %q, %v", ref, err)
		}
	}
	if n := len(rt.Journal()); n != 1 {
		t.Errorf("IfNotPresent twice pulled %d times", n)
	}
	if _, err := ensure(t, p, "nginx:1", corev1.PullAlways); err != nil || len(rt.Journal()) != 2 {
		t.Errorf("Always did not pull again: %v, %q", err, rt.Journal())
	}
	if _, err := ensure(t, p, "missing/x:1", ""); reason(err) != "ErrImagePull" || !strings.Contains(err.Error(), "not found") {
		t.Errorf("missing: %v", err)
	}
	text := strings.Join(ev.all, "\n")
	for _, want := range []string{
		`Pulling Pulling image "nginx:1"`, `Pulled Successfully pulled image "nginx:1" in `, "Image size: 4096 bytes.",
		`Pulled Container image "nginx:1" already present on machine`, `ErrImageNeverPull Container image "nginx:1" is not present with pull policy of Never`,
		`Failed Failed to pull image "missing/x:1": `, "Failed Error: ErrImagePull",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no event %q in\n%s", want, text)
		}
	}
}

// References that are none are refused by name, without asking anybody (IM35).
func TestHostile_IM35(t *testing.T) {
	rt, conn := kubelettest.New(t)
	p := New(Config{}, criclient.New(conn), secrets{}, &events{})
	for _, image := range []string{"", "r.example/UPPER:1", "a/../b", "nginx@sha256:zz", "nginx:" + strings.Repeat("t", 300), "nginх:1", "a b", ":tag"} {
		_, err := ensure(t, p, image, "")
		if f := (*Failure)(nil); !errors.As(err, &f) || f.Reason != "InvalidImageName" {
			t.Errorf("%q: %v, want InvalidImageName", image, err)
		}
	}
	if len(rt.Journal()) != 0 {
		t.Errorf("the runtime was asked: %q", rt.Journal())
	}
}

// A pod without the pull secret does not get a private image for its being on the node already; a restart of the
// daemon forgets nothing, and what anybody may pull stays everybody's (IM36).
func TestHostile_IM36(t *testing.T) {
	rt, conn := kubelettest.New(t)
	login := func(user string) *corev1.Secret {
		return &corev1.Secret{Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"r.example":{"username":"` + user + `","password":"p"}}}`)}}
	}
	rt.Private = func(image, user string) bool { return strings.HasPrefix(image, "r.example/private") && user != "a" }
	dir := t.TempDir()
	as := func(secret, image string, policy corev1.PullPolicy) error {
		p := New(Config{Ledger: dir}, criclient.New(conn), secrets{"a": login("a"), "b": login("b")}, &events{})
		pod := &corev1.Pod{}
		if secret != "" {
			pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: secret}}
		}
		_, err := p.Ensure(t.Context(), pod, &corev1.Container{Name: "c", Image: image, ImagePullPolicy: policy}, &runtimeapi.PodSandboxConfig{})
		return err
	}
	if err := as("a", "r.example/private:1", corev1.PullIfNotPresent); err != nil {
		t.Fatalf("the owner's pull: %v", err)
	}
	for _, who := range []string{"", "b"} {
		for _, policy := range []corev1.PullPolicy{corev1.PullIfNotPresent, corev1.PullNever} {
			if err := as(who, "r.example/private:1", policy); err == nil {
				t.Errorf("pod with secret %q got the private image under %s", who, policy)
			}
		}
	}
	calls := len(rt.Journal())
	if err := as("a", "r.example/private:1", corev1.PullNever); err != nil || len(rt.Journal()) != calls {
		t.Errorf("the owner again: %v, after %d more pulls", err, len(rt.Journal())-calls)
	}
	if err := as("", "r.example/public:1", corev1.PullIfNotPresent); err != nil {
		t.Fatal(err)
	}
	if err := as("b", "r.example/public:1", corev1.PullNever); err != nil {
		t.Errorf("a public image is refused: %v", err)
	}
}

func TestDefaultPolicy(t *testing.T) {
	for image, want := range map[string]corev1.PullPolicy{
		"nginx": corev1.PullAlways, "nginx:latest": corev1.PullAlways, "nginx:1": corev1.PullIfNotPresent,
		"r.example:5000/a": corev1.PullAlways, "nginx@sha256:" + strings.Repeat("a", 64): corev1.PullIfNotPresent,
	} {
		if got := Policy(&corev1.Container{Image: image}); got != want {
			t.Errorf("Policy(%q) = %s, want %s", image, got, want)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		key, image string
		want       bool
	}{
		{"https://index.docker.io/v1/", "nginx", true}, {"docker.io", "nginx", true}, {"docker.io/library", "nginx", true}, {"docker.io/other", "nginx", false},
		{"r.example", "r.example/a/b:1", true}, {"r.example/a", "r.example/a/b", true}, {"r.example/a", "r.example/ab", false},
		{"r.example:5000", "r.example/a", false}, {"r.example:5000", "r.example:5000/a", true}, {"*.example.com", "x.example.com/a", true},
		{"*.example.com", "x.y.example.com/a", false}, {"evil.com", "r.example/evil.com", false},
	} {
		if got := Matches(c.key, c.image); got != c.want {
			t.Errorf("Matches(%q, %q) = %t, want %t", c.key, c.image, got, c.want)
		}
	}
}

func TestCredentials(t *testing.T) {
	s := secrets{
		"new": {Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"r.example":{"auth":"dTpw"},"r.example/deep":{"username":"d","password":"q"},"other":{"auth":"eDp5"}}}`)}},
		"bad": {Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{`)}},
	}
	ev := &events{}
	p := New(Config{}, nil, s, ev)
	pod := &corev1.Pod{Spec: corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "bad"}, {Name: "new"}, {Name: "gone"}}}}
	got := p.credentials(t.Context(), pod, "r.example/deep/app:1")
	if len(got) != 2 || got[0].GetUsername() != "d" || got[1].GetUsername() != "u" || got[1].GetPassword() != "p" {
		t.Errorf("credentials = %d, want the deeper login before the wider one", len(got))
	}
	if len(ev.all) != 1 || !strings.Contains(ev.all[0], "gone") {
		t.Errorf("events = %q, want one about the missing secret", ev.all)
	}
}

func FuzzMatches(f *testing.F) {
	f.Add("https://index.docker.io/v1/", "nginx")
	f.Add("*.[x", "a.b/c")
	f.Fuzz(func(t *testing.T, key, image string) { Matches(key, image) })
}
