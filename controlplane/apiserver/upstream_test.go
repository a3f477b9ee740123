package apiserver

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// TestUpstream compares a fresh server with what a fresh upstream 1.37.2 serves and holds (testdata/upstream).
func TestUpstream(t *testing.T) {
	r := start(t, "")
	t.Run("resources", func(t *testing.T) { upstreamResources(t, r) })
	t.Run("objects", func(t *testing.T) { upstreamObjects(t, r) })
}

// notServed are upstream's resources that are not served here, each with the reason; empty: every one is.
var notServed = map[string]string{}

// extra is what is served or held here and not by upstream's API server, each with the reason.
var extra = map[string]string{
	"metrics.k8s.io/v1beta1":                               "upstream's clusters have it from metrics-server; `kubectl top` and autoscalers want it",
	"ClusterRole /system:aggregated-metrics-reader":        "metrics-server's role: who may view pods may view what they use",
	"ClusterRole /system:controller:csi-controller":        "the roles of the CSI sidecars, which this control plane plays itself",
	"ClusterRoleBinding /system:controller:csi-controller": "likewise",
}

// upstreamResources compares every resource: names, version, scope, verbs, categories.
func upstreamResources(t *testing.T, r *running) {
	lists, err := discovery.NewDiscoveryClientForConfigOrDie(r.admin).ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range lists {
		if extra[l.GroupVersion] != "" {
			continue
		}
		for _, x := range l.APIResources {
			if len(x.Verbs) == 0 {
				continue
			}
			verbs := slices.Sorted(slices.Values([]string(x.Verbs)))
			got = append(got, strings.Join(strings.Fields(fmt.Sprintln(x.Name, strings.Join(x.ShortNames, ","), l.GroupVersion, x.Namespaced, x.Kind,
				strings.Join(verbs, ","), strings.Join(x.Categories, ","))), " "))
		}
	}
	b, err := os.ReadFile("testdata/upstream/api-resources-1.37.2.txt")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n")[1:] {
		if f := strings.Fields(line); notServed[f[0]] == "" {
			want = append(want, strings.Join(f, " "))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("resources (- upstream, + here):\n%s", d)
	}
}

// upstreamObjects compares roles rule by rule, bindings, flow schemas, priority levels and priority classes, both ways.
func upstreamObjects(t *testing.T, r *running) {
	dyn, err := dynamic.NewForConfig(r.admin)
	if err != nil {
		t.Fatal(err)
	}
	want := map[schema.GroupVersionKind]map[string]unstructured.Unstructured{}
	for _, file := range []string{"rbac-bootstrap-1.37.2.yaml", "flow-and-priority-1.37.2.yaml"} {
		for _, o := range readList(t, filepath.Join("testdata/upstream", file)) {
			gvk := o.GroupVersionKind()
			if want[gvk] == nil {
				want[gvk] = map[string]unstructured.Unstructured{}
			}
			want[gvk][o.GetNamespace()+"/"+o.GetName()] = o
		}
	}
	if len(want) != 7 {
		t.Fatalf("testdata has %d kinds", len(want))
	}
	for gvk, objects := range want {
		gvr := schema.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: strings.ToLower(gvk.Kind) + "s"}
		if gvk.Kind == "PriorityClass" {
			gvr.Resource = "priorityclasses"
		}
		list, err := dyn.Resource(gvr).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Errorf("%s: %v", gvr, err)
			continue
		}
		here := map[string]unstructured.Unstructured{}
		for _, o := range list.Items {
			here[o.GetNamespace()+"/"+o.GetName()] = o
		}
		for name, o := range objects {
			h, ok := here[name]
			if !ok {
				t.Errorf("%s %s is missing", gvk.Kind, name)
				continue
			}
			have := essence(t, h)
			if lines, ok := have["rules"].([]string); ok && have["aggregationRule"] != nil { // of the extra role
				have["rules"] = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, " metrics.k8s.io/") })
			}
			if d := cmp.Diff(essence(t, o), have); d != "" {
				t.Errorf("%s %s (- upstream, + here):\n%s", gvk.Kind, name, d)
			}
		}
		for name := range here {
			if _, ok := objects[name]; !ok && extra[gvk.Kind+" "+name] == "" && !strings.Contains(name, "/kubeadm:") { // its installer's
				t.Errorf("%s %s is not upstream's", gvk.Kind, name)
			}
		}
	}
}

func readList(t *testing.T, path string) []unstructured.Unstructured {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []unstructured.Unstructured
	for _, doc := range strings.Split("\n"+string(b), "\n---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		j, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		var l struct{ Items []map[string]any }
		if err := json.Unmarshal(j, &l); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, o := range l.Items {
			out = append(out, unstructured.Unstructured{Object: o})
		}
	}
	return out
}

// essence is what two clusters' objects have in common: labels, annotations and what the object says; rules each as one
// sorted line per verb, so that it matters neither how they are grouped nor their order.
func essence(t *testing.T, o unstructured.Unstructured) map[string]any {
	t.Helper()
	out := map[string]any{"labels": o.GetLabels(), "annotations": o.GetAnnotations()}
	for k, v := range o.Object {
		switch k {
		case "metadata", "status", "apiVersion", "kind":
		case "rules":
			out[k] = ruleLines(t, v)
		default:
			b, err := json.Marshal(v) // numbers of YAML and of the wire become alike
			if err != nil {
				t.Fatal(err)
			}
			var plain any
			_ = json.Unmarshal(b, &plain)
			out[k] = plain
		}
	}
	return out
}

func ruleLines(t *testing.T, v any) []string {
	t.Helper()
	b, _ := json.Marshal(v)
	var rules []rbacv1.PolicyRule
	if err := json.Unmarshal(b, &rules); err != nil {
		t.Fatal(err)
	}
	lines := []string{}
	for _, r := range rules {
		for _, verb := range r.Verbs {
			for _, url := range r.NonResourceURLs {
				lines = append(lines, verb+" "+url)
			}
			for _, g := range r.APIGroups {
				for _, res := range r.Resources {
					lines = append(lines, strings.TrimSpace(fmt.Sprint(verb, " ", g, "/", res, " ", strings.Join(r.ResourceNames, ","))))
				}
			}
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}
