package main

import (
	"reflect"
	"slices"
	"testing"
)

// Everything that is asked can be read, and no object is there twice: the second could not be made.
func TestCorpus(t *testing.T) {
	objects, err := corpus()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, o := range objects {
		kind, _ := o["kind"].(string)
		version, _ := o["apiVersion"].(string)
		if kind == "" || version == "" {
			t.Errorf("no kind: %v", o)
		}
		if name := nameOf(o); name != "" {
			key := version + "/" + kind + "/" + name
			if seen[key] {
				t.Errorf("%s is there twice", key)
			}
			seen[key] = true
		}
	}
	requests, err := scripted("ns")
	if err != nil || len(requests) < 100 {
		t.Errorf("%d requests, %v", len(requests), err)
	}
}

func TestMutation(t *testing.T) {
	object := func() map[string]any {
		return map[string]any{"spec": map[string]any{"list": []any{map[string]any{"name": "a"}, "b"}, "n": int64(1)}}
	}
	at := func(path ...any) []any { return path }
	for _, c := range []struct {
		m    mutation
		want map[string]any
	}{
		{mutation{at("spec", "n"), "number", int64(2)}, map[string]any{"spec": map[string]any{"list": []any{map[string]any{"name": "a"}, "b"}, "n": int64(2)}}},
		{mutation{at("spec", "list", 0, "name"), "remove", absent{}}, map[string]any{"spec": map[string]any{"list": []any{map[string]any{}, "b"}, "n": int64(1)}}},
		{mutation{at("spec", "list", 0), "remove", absent{}}, map[string]any{"spec": map[string]any{"list": []any{"b"}, "n": int64(1)}}},
		{mutation{at("spec", "list"), "item", insert{"c"}}, map[string]any{"spec": map[string]any{"list": []any{map[string]any{"name": "a"}, "b", "c"}, "n": int64(1)}}},
		{mutation{at("spec", "none", "deeper"), "add", "x"}, nil},
		{mutation{at("spec", "none"), "remove", absent{}}, nil},
	} {
		from := object()
		got, ok := c.m.apply(from)
		if ok != (c.want != nil) || ok && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, %v", c.m, got, ok)
		}
		if !reflect.DeepEqual(from, object()) {
			t.Fatalf("%s changed what it was applied to", c.m)
		}
	}
}

// What the schema knows and the object lacks is added, what it has is changed, and nothing outside what is asked for.
func TestMutations(t *testing.T) {
	s := &schemas{map[string]*schema{
		"Thing": {Properties: map[string]*schema{"spec": {Ref: "#/components/schemas/Spec"}, "status": {Type: "object"}}},
		"Spec":  {Properties: map[string]*schema{"size": {Type: "integer"}, "mode": {Type: "string", Enum: []any{"On", "Off"}}, "labels": {Type: "object", Additional: &schema{Type: "string"}}}},
	}}
	var tried []string
	for _, m := range mutations(s, "Thing", map[string]any{"spec": map[string]any{"size": int64(3)}, "status": map[string]any{"x": "y"}}, "spec") {
		tried = append(tried, m.String())
	}
	for _, want := range []string{"spec removed", "spec.size = -1", `spec.mode = "On"`, `spec.mode = "x"`, "spec.size removed", `spec.labels = {"Bad Key!":"x"}`} {
		if !slices.Contains(tried, want) {
			t.Errorf("%s is not tried, of %q", want, tried)
		}
	}
	for _, m := range tried {
		if m[:4] != "spec" {
			t.Errorf("%s was not asked for", m)
		}
	}
}

func TestBeside(t *testing.T) {
	ours, peer := beside([]string{"a", "b", "spec.clusterIP: \"10.0.0.1\"", "b"}, []string{"b", "spec.clusterIP: \"10.0.0.9\"", "c"})
	if !slices.Equal(ours, []string{"a", "b"}) || !slices.Equal(peer, []string{"c"}) {
		t.Errorf("only ours %q, only the peer's %q", ours, peer)
	}
}
