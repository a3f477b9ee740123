package resourcetest

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/check"
)

// Row is one line of `kubectl api-resources`.
type Row struct {
	Plural     string
	Short      string // comma separated
	Kind       string
	Namespaced bool
	Verbs      string // comma separated, sorted; empty means all eight
	Categories string
}

// All are the verbs of an ordinary kind.
const All = "create,delete,deletecollection,get,list,patch,update,watch"

// CheckNames compares a group's kinds with rows, both ways.
func CheckNames(t *testing.T, g resource.Group, rows ...Row) {
	t.Helper()
	var got, want []string
	for _, k := range g.Kinds {
		verbs := strings.Join(k.Verbs, ",")
		if k.Verbs == nil {
			verbs = All
		}
		got = append(got, line(k.Plural, strings.Join(k.ShortNames, ","), k.Kind, k.Namespaced, verbs, strings.Join(k.Categories, ",")))
		if k.New == nil || k.NewList == nil {
			t.Errorf("%s: New or NewList is not set", k.Kind)
		}
	}
	for _, r := range rows {
		verbs := r.Verbs
		if verbs == "" {
			verbs = All
		}
		want = append(want, line(r.Plural, r.Short, r.Kind, r.Namespaced, verbs, r.Categories))
	}
	slices.Sort(got)
	slices.Sort(want)
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("kinds of group\ngot:\n%s\nwant:\n%s", g, w)
	}
}

func line(plural, short, kind string, namespaced bool, verbs, categories string) string {
	scope := "cluster"
	if namespaced {
		scope = "namespaced"
	}
	return strings.Join([]string{plural, short, kind, scope, verbs, categories}, " | ")
}

// Kind returns the group's kind of that name.
func Kind(t *testing.T, g resource.Group, kind string) resource.Kind {
	t.Helper()
	for _, k := range g.Kinds {
		if k.Kind == kind {
			return k
		}
	}
	t.Fatalf("group %q has no kind %s", g.Name, kind)
	return resource.Kind{}
}

// CheckErrors compares errors, in the form in which they are answered, with the wanted lines, in order; a line is wanted as a part of the
// error's text.
func CheckErrors(t *testing.T, got field.ErrorList, want ...string) {
	t.Helper()
	got = check.Tidy(got)
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("missing error: %s", want[i])
		case i >= len(want):
			t.Errorf("unexpected error: %v", got[i])
		case !strings.Contains(got[i].Error(), want[i]):
			t.Errorf("error %d\n got: %v\nwant: %s", i, got[i], want[i])
		}
	}
}

// CheckDefaults applies the kind's defaults to obj and fails unless the result is want and a second time changes nothing.
func CheckDefaults(t *testing.T, k resource.Kind, obj, want runtime.Object) {
	t.Helper()
	k.Default(obj)
	if !equality.Semantic.DeepEqual(obj, want) {
		t.Errorf("%s defaults\n got: %+v\nwant: %+v", k.Kind, obj, want)
	}
	again := obj.DeepCopyObject()
	k.Default(again)
	if !equality.Semantic.DeepEqual(again, obj) {
		t.Errorf("%s defaults are not idempotent\nonce: %+v\ntwice: %+v", k.Kind, obj, again)
	}
}

// Cells returns the names of the kind's columns as kubectl shows them and the cells of its own ones;
// names are joined by "|", wide ones carry a "+", and NAME is left out unless the kind prints it itself.
func Cells(k resource.Kind, obj runtime.Object) (names string, cells []any) {
	var list, wide []string
	for _, c := range k.Columns {
		cells = append(cells, c.Value(obj))
		if c.Priority > 0 {
			wide = append(wide, "+"+c.Name)
		} else {
			list = append(list, c.Name)
		}
	}
	if !k.NoAge {
		list = append(list, "Age")
	}
	return strings.Join(append(list, wide...), "|"), cells
}
