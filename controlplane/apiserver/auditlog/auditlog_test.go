package auditlog

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

func TestPolicy(t *testing.T) {
	rules, err := load("")
	if err != nil {
		t.Fatal(err)
	}
	log := to(os.Stderr, rules)
	alice, kubelet := &user.DefaultInfo{Name: "alice"}, &user.DefaultInfo{Name: "system:node:n", Groups: []string{user.NodesGroup}}
	for _, c := range []struct {
		who           user.Info
		verb, group   string
		resource, sub string
		want          auditinternal.Level
	}{
		{alice, "get", "", "pods", "", auditinternal.LevelNone},
		{alice, "create", "", "pods", "", auditinternal.LevelMetadata},
		{alice, "delete", "apps", "deployments", "", auditinternal.LevelMetadata},
		{alice, "get", "", "secrets", "", auditinternal.LevelMetadata},
		{alice, "get", "", "pods", "exec", auditinternal.LevelMetadata},
		{alice, "create", "", "serviceaccounts", "token", auditinternal.LevelMetadata},
		{alice, "create", "authorization.k8s.io", "selfsubjectaccessreviews", "", auditinternal.LevelNone},
		{alice, "create", "authentication.k8s.io", "tokenreviews", "", auditinternal.LevelMetadata},
		{kubelet, "get", "", "secrets", "", auditinternal.LevelNone},
		{kubelet, "patch", "", "pods", "status", auditinternal.LevelNone},
		{kubelet, "update", "coordination.k8s.io", "leases", "", auditinternal.LevelNone},
		{kubelet, "delete", "", "pods", "", auditinternal.LevelMetadata},
	} {
		got := log.Policy.EvaluatePolicyRule(authorizer.AttributesRecord{User: c.who, Verb: c.verb, APIGroup: c.group, APIVersion: "v1",
			Resource: c.resource, Subresource: c.sub, ResourceRequest: true, Namespace: "default", Name: "x"})
		if got.Level != c.want {
			t.Errorf("%s %s %s/%s %s: %s, want %s", c.who.GetName(), c.verb, c.group, c.resource, c.sub, got.Level, c.want)
		}
	}
}

func event(id string) *auditinternal.Event {
	return &auditinternal.Event{AuditID: types.UID(id), Level: auditinternal.LevelMetadata, Stage: auditinternal.StageResponseComplete}
}

func TestWritesAndBoundsItself(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	log, err := Open(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	if err := log.Backend.Run(stop); err != nil {
		t.Fatal(err)
	}
	log.Backend.ProcessEvents(event("a"), event("b"))
	close(stop)
	log.Backend.Shutdown()
	b, err := os.ReadFile(filepath.Join(dir, "audit.log"))
	if err != nil || strings.Count(string(b), "\n") != 2 || !strings.Contains(string(b), `"auditID":"b"`) {
		t.Errorf("the log is %q, %v", b, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "audit.log")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the log's mode: %v %v", info.Mode(), err)
	}
	if _, err := Open(dir, filepath.Join(dir, "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("a policy that is not there: %v", err)
	}
}

// stuck is a disk that takes nothing until it is let go.
type stuck struct {
	free  chan struct{}
	wrote atomic.Int64
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.free
	s.wrote.Add(1)
	return len(p), nil
}

// TestHostile_AP41: a disk that hangs stops no request and fills no memory; what it cannot take is dropped.
func TestHostile_AP41(t *testing.T) {
	rules, err := load("")
	if err != nil {
		t.Fatal(err)
	}
	disk := &stuck{free: make(chan struct{})}
	log := to(disk, rules)
	stop := make(chan struct{})
	if err := log.Backend.Run(stop); err != nil {
		t.Fatal(err)
	}
	for range 10 * waiting {
		log.Backend.ProcessEvents(event("x")) // must not block
	}
	close(disk.free)
	close(stop)
	log.Backend.Shutdown()
	if n := disk.wrote.Load(); n == 0 || n > waiting+1 {
		t.Errorf("%d events were kept for the disk, at most %d may be", n, waiting+1)
	}
}

// FuzzPolicy: a policy that is anything is one or an error, and one is applied to any request.
func FuzzPolicy(f *testing.F) {
	f.Add(builtin, "create", "secrets")
	f.Add([]byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Request, resources: [{group: '', resources: ['*/status'], resourceNames: [a]}], nonResourceURLs: ['/x*']}]"), "get", "pods/status")
	f.Fuzz(func(t *testing.T, text []byte, verb, resource string) {
		file := filepath.Join(t.TempDir(), "policy.yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		rules, err := load(file)
		if err != nil {
			return
		}
		to(io.Discard, rules).Policy.EvaluatePolicyRule(authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "u"}, Verb: verb, Resource: resource, ResourceRequest: resource != "", Path: "/" + resource})
	})
}
