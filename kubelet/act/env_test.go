package act

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"

	"keelson.dev/keelson/kubelet/observe"
)

// api is a cluster with one ConfigMap and one Secret, both named "x".
type api struct{}

func (api) ConfigMap(_ context.Context, ns, name string) (*corev1.ConfigMap, error) {
	if name != "x" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmap"}, name)
	}
	return &corev1.ConfigMap{Data: map[string]string{"KEY": "cm", "bad=key": "skipped"}}, nil
}

func (api) Secret(_ context.Context, ns, name string) (*corev1.Secret, error) {
	if name != "x" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secret"}, name)
	}
	return &corev1.Secret{Data: map[string][]byte{"KEY": {0xff, 0xfe, 'x'}}}, nil
}

func (api) Services(context.Context, string) ([]*corev1.Service, error) {
	svc := func(ns, name, ip string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
			Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: "TCP"}}}}
	}
	return []*corev1.Service{svc("default", "kubernetes", "10.96.0.1"), svc("ns", "my-web", "10.96.0.2"), svc("ns", "headless", "None")}, nil
}

func (api) RuntimeHandler(context.Context, string) (string, error) { return "", nil }

func (api) Node() (*corev1.Node, error) {
	n := &corev1.Node{}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
	n.Status.Allocatable = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourceCPU: resource.MustParse("2")}
	return n, nil
}

func executor(t *testing.T) *Executor {
	dir := t.TempDir()
	return New(Config{Root: filepath.Join(dir, "kubelet"), LogRoot: filepath.Join(dir, "logs"), Hostname: "host", DNS: DNS{Domain: "cluster.local"}},
		Deps{API: api{}, Events: record.NewFakeRecorder(100)})
}

func testPod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u", Labels: map[string]string{"a/b": "label"}},
		Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c"}}}}
}

func field(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

func TestEnvironment(t *testing.T) {
	yes, ref := true, corev1.LocalObjectReference{Name: "x"}
	none := corev1.LocalObjectReference{Name: "none"}
	p := testPod()
	c := &p.Spec.Containers[0]
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")}
	c.EnvFrom = []corev1.EnvFromSource{
		{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref}},
		{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: none, Optional: &yes}},
	}
	c.Env = []corev1.EnvVar{
		{Name: "A", Value: "one"}, {Name: "B", Value: "$(A)-$(P_KEY)-$(MY_WEB_SERVICE_HOST)-$(NOPE)-$$(A)"},
		{Name: "SECRET", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref, Key: "KEY"}}},
		{Name: "GONE", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: none, Key: "k", Optional: &yes}}},
		{Name: "LABEL", ValueFrom: field("metadata.labels['a/b']")}, {Name: "IP", ValueFrom: field("status.podIP")},
		{Name: "IPS", ValueFrom: field("status.podIPs")}, {Name: "HOST", ValueFrom: field("status.hostIP")},
		{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
		{Name: "MEM", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
		{Name: "A", Value: "two"},
	}
	list, err := executor(t).environment(t.Context(), p, c, []string{"10.0.0.1", "fd00::1"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, v := range list {
		if _, twice := got[v.Name]; twice {
			t.Errorf("%s comes twice", v.Name)
		}
		got[v.Name] = v.Value
	}
	want := map[string]string{
		"A": "two", "B": "one-cm-10.96.0.2-$(NOPE)-$(A)", "P_KEY": "cm", "SECRET": "\xff\xfex", "LABEL": "label", "IP": "10.0.0.1",
		"IPS": "10.0.0.1,fd00::1", "HOST": "192.0.2.1", "CPU": "2", "MEM": "4096", "KUBERNETES_SERVICE_HOST": "10.96.0.1",
		"MY_WEB_SERVICE_PORT_HTTP": "80", "MY_WEB_PORT_80_TCP": "tcp://10.96.0.2:80",
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s = %q, want %q", k, got[k], v)
		}
	}
	for _, k := range []string{"GONE", "P_bad=key", "HEADLESS_SERVICE_HOST"} {
		if _, has := got[k]; has {
			t.Errorf("%s should not be there", k)
		}
	}
	no := false
	p.Spec.EnableServiceLinks = &no
	list, err = executor(t).environment(t.Context(), p, &corev1.Container{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list {
		if strings.HasPrefix(v.Name, "MY_WEB") {
			t.Errorf("%s is there without service links", v.Name)
		}
	}
}

func TestEnvironmentErrors(t *testing.T) {
	p := testPod()
	ref := corev1.LocalObjectReference{Name: "x"}
	for want, src := range map[string]*corev1.EnvVarSource{
		`couldn't find key k in ConfigMap ns/x`: {ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref, Key: "k"}},
		`secret "none" not found`:               {SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Key: "k"}},
		`unsupported fieldPath: spec.magic`:     field("spec.magic"),
	} {
		_, err := executor(t).environment(t.Context(), p, &corev1.Container{Env: []corev1.EnvVar{{Name: "V", ValueFrom: src}}}, nil)
		if err == nil || err.Error() != want {
			t.Errorf("error = %v, want %q", err, want)
		}
	}
}

func TestExpand(t *testing.T) {
	env := map[string]string{"A": "a", "E": ""}
	for in, want := range map[string]string{
		"$(A)": "a", "x$(A)y$(E)z": "xayz", "$$(A)": "$(A)", "$$$(A)": "$a", "$(B)": "$(B)", "$(A": "$(A", "$": "$", "$A": "$A", "$(": "$(", "": "",
	} {
		if got := Expand(in, env); got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
}

// A subPathExpr with a name that nobody knows is refused, and works once the name is there (PS3).
func TestHostile_PS3(t *testing.T) {
	if _, err := expandStrictly("logs/$(POD)", map[string]string{}); err == nil {
		t.Error("an unknown name in subPathExpr was let through")
	}
	if got, err := expandStrictly("logs/$(POD)`id`", map[string]string{"POD": "p"}); err != nil || got != "logs/p`id`" {
		t.Errorf("expandStrictly = %q, %v; backticks are no commands", got, err)
	}
}

// A termination log may be huge, a link, a FIFO or a device: the message is short, and nothing hangs or leaks (PS8).
func TestHostile_PS8(t *testing.T) {
	e := executor(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("root:x"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := observe.Container{Name: "c", State: observe.Exited, ExitCode: 1}
	path := e.terminationPath("u", "c", 0)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func() error{
		"link":   func() error { return os.Symlink(secret, path) },
		"fifo":   func() error { return syscall.Mkfifo(path, 0o600) },
		"folder": func() error { return os.Mkdir(path, 0o755) },
		"none":   func() error { return nil },
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
		if got := e.TerminationMessage("u", c, corev1.TerminationMessageReadFile); got != "" {
			t.Errorf("%s: message = %q, want none", name, got)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 1<<20)), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := e.TerminationMessage("u", c, corev1.TerminationMessageReadFile); len(got) != 4096 {
		t.Errorf("huge: message has %d bytes, want 4096", len(got))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	c.LogPath = filepath.Join(t.TempDir(), "0.log")
	line := "2026-11-22T17:00:00.000000000Z stderr F " + strings.Repeat("y", 99) + "\n"
	if err := os.WriteFile(c.LogPath, []byte(strings.Repeat(line, 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	got := e.TerminationMessage("u", c, corev1.TerminationMessageFallbackToLogsOnError)
	if len(got) == 0 || len(got) > 2048 || strings.Contains(got, "stderr") {
		t.Errorf("fallback: %d bytes, beginning %.40q", len(got), got)
	}
	// A long line in two records, and a last one that the container did not end.
	parts := "2026-11-22T17:00:00.000000000Z stdout P one \n2026-11-22T17:00:00.000000000Z stdout F line\n2026-11-22T17:00:00.000000000Z stdout P DONE\n"
	if err := os.WriteFile(c.LogPath, []byte(parts), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := e.TerminationMessage("u", c, corev1.TerminationMessageFallbackToLogsOnError); got != "one line\nDONE" {
		t.Errorf("fallback to partial records: %q", got)
	}
	c.ExitCode = 0
	if got := e.TerminationMessage("u", c, corev1.TerminationMessageFallbackToLogsOnError); got != "" {
		t.Errorf("fallback without an error: %q", got)
	}
}

func TestDNS(t *testing.T) {
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 9.9.9.9\nsearch corp.example.\noptions rotate\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := DNS{Servers: []string{"10.96.0.10"}, Domain: "cluster.local", ResolvConf: resolv}
	five := "2"
	for name, c := range map[string]struct {
		adjust                     func(*corev1.Pod)
		servers, searches, options []string
	}{
		"ClusterFirst":           {func(p *corev1.Pod) {}, []string{"10.96.0.10"}, []string{"ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"}, []string{"ndots:5"}},
		"host network":           {func(p *corev1.Pod) { p.Spec.HostNetwork = true }, []string{"9.9.9.9"}, []string{"corp.example"}, []string{"rotate"}},
		"host network, explicit": {func(p *corev1.Pod) { p.Spec.HostNetwork, p.Spec.DNSPolicy = true, corev1.DNSClusterFirstWithHostNet }, []string{"10.96.0.10"}, []string{"ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"}, []string{"ndots:5"}},
		"Default":                {func(p *corev1.Pod) { p.Spec.DNSPolicy = corev1.DNSDefault }, []string{"9.9.9.9"}, []string{"corp.example"}, []string{"rotate"}},
		"None with config": {func(p *corev1.Pod) {
			p.Spec.DNSPolicy = corev1.DNSNone
			p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}, Searches: []string{"a.b"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &five}, {Name: "edns0"}}}
		}, []string{"1.1.1.1"}, []string{"a.b"}, []string{"ndots:2", "edns0"}},
	} {
		p := testPod()
		c.adjust(p)
		got, err := d.For(p)
		if err != nil || !reflect.DeepEqual(got.GetServers(), c.servers) || !reflect.DeepEqual(got.GetSearches(), c.searches) || !reflect.DeepEqual(got.GetOptions(), c.options) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestNonRoot(t *testing.T) {
	yes, zero, some := true, int64(0), int64(1000)
	for name, c := range map[string]struct {
		user    *int64 // of the security context
		image   *int64
		name    string
		refused bool
	}{
		"image is root": {nil, &zero, "", true}, "image says nothing": {nil, nil, "", true}, "image has a name": {nil, nil, "app", true},
		"image has a number": {nil, &some, "", false}, "overridden": {&some, &zero, "", false}, "asked for root": {&zero, &some, "", true},
	} {
		p := testPod()
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: c.user}
		if err := checkNonRoot(p, &p.Spec.Containers[0], c.image, c.name); (err != nil) != c.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorKeepsItsCause(t *testing.T) {
	cause := errors.New("cause")
	if err := error(&Error{"Reason", cause}); !errors.Is(err, cause) || err.Error() != "Reason: cause" {
		t.Errorf("error = %v", err)
	}
}
