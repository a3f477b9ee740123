package apiserver

import (
	"fmt"
	"runtime"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
)

func TestSameSpec(t *testing.T) {
	layout, err := definitionLayout(apiextensions.Resource("customresourcedefinitions"), nil)
	if err != nil {
		t.Fatal(err)
	}
	codec := layout.Codec.(*sameSpec)
	decode := func(uid string, generation, resourceVersion int, into *apiextensions.CustomResourceDefinition) *apiextensions.CustomResourceDefinition {
		t.Helper()
		text := fmt.Appendf(nil, `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"ships.keelson.test","uid":%q,"generation":%d,"resourceVersion":"%d"},`+
			`"spec":{"group":"keelson.test","scope":"Namespaced","names":{"plural":"ships","kind":"Ship"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}`, uid, generation, resourceVersion)
		var obj any
		if into == nil {
			obj, _, err = codec.Decode(text, nil, nil)
		} else {
			obj, _, err = codec.Decode(text, nil, into)
		}
		if err != nil {
			t.Fatal(err)
		}
		return obj.(*apiextensions.CustomResourceDefinition)
	}
	schema := func(crd *apiextensions.CustomResourceDefinition) any {
		if crd.Spec.Validation != nil { // the internal type has that of a single version here
			return crd.Spec.Validation.OpenAPIV3Schema
		}
		return crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	}
	first := decode("a", 1, 1, nil)
	if next := decode("a", 1, 2, nil); schema(next) != schema(first) || next.ResourceVersion != "2" {
		t.Errorf("an object with the same spec has its own, or not its own metadata: %v", next.ObjectMeta)
	}
	mine := decode("a", 1, 3, &apiextensions.CustomResourceDefinition{})
	if schema(mine) == schema(first) {
		t.Error("an object of the caller's, which may be changed, shares its spec")
	}
	if changed := decode("a", 2, 4, nil); schema(changed) == schema(first) {
		t.Error("an object of another generation shares its spec")
	}
	if another := decode("b", 2, 5, nil); schema(another) == schema(first) {
		t.Error("another object of the same name shares its spec")
	}
	runtime.GC()
	runtime.GC()
	codec.share(&apiextensions.CustomResourceDefinition{})
	if n := len(codec.last); n != 1 {
		t.Errorf("%d objects are remembered, want the one that lives", n)
	}
}
