package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
)

// A mutation is one change of an object: at a path, to a value or to nothing.
type mutation struct {
	path []any // string for a field or key, int for an item
	op   string
	to   any // the value to set; absent removes, insert appends it to the list at path
}

type (
	absent struct{}
	insert struct{ item any }
)

func (m mutation) String() string {
	switch to := m.to.(type) {
	case absent:
		return where(m.path) + " removed"
	case insert:
		return fmt.Sprintf("%s + %s", where(m.path), short(to.item))
	default:
		return fmt.Sprintf("%s = %s", where(m.path), short(to))
	}
}

func short(v any) string {
	s := fmt.Sprintf("%#v", v)
	s = strings.NewReplacer("map[string]interface {}", "", "[]interface {}", "").Replace(s)
	if len(s) > 60 {
		s = s[:50] + "…(" + strconv.Itoa(len(s)) + ")"
	}
	return s
}

func where(path []any) string {
	var b strings.Builder
	for _, p := range path {
		switch p := p.(type) {
		case int:
			fmt.Fprintf(&b, "[%d]", p)
		case string:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(p)
		}
	}
	return b.String()
}

// apply returns a copy of the object with the change made; false if the path is not there.
func (m mutation) apply(object map[string]any) (map[string]any, bool) {
	out := runtime.DeepCopyJSON(object)
	v, ok := change(out, m.path, m.to)
	if !ok {
		return nil, false
	}
	return v.(map[string]any), true
}

func change(v any, path []any, to any) (any, bool) {
	if len(path) == 0 {
		if in, ok := to.(insert); ok {
			list, ok := v.([]any)
			if !ok && v != nil {
				return nil, false
			}
			return append(list, runtime.DeepCopyJSONValue(in.item)), true
		}
		return runtime.DeepCopyJSONValue(to), true
	}
	_, gone := to.(absent)
	switch key := path[0].(type) {
	case string:
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if len(path) == 1 && gone {
			if _, ok := m[key]; !ok {
				return nil, false
			}
			delete(m, key)
			return m, true
		}
		if _, ok := m[key]; !ok && len(path) > 1 {
			return nil, false
		}
		item, ok := change(m[key], path[1:], to)
		if ok {
			m[key] = item
		}
		return m, ok
	case int:
		l, ok := v.([]any)
		if !ok || key >= len(l) {
			return nil, false
		}
		if len(path) == 1 && gone {
			return slices.Delete(l, key, key+1), true
		}
		item, ok := change(l[key], path[1:], to)
		if ok {
			l[key] = item
		}
		return l, ok
	}
	return nil, false
}

// odd values by type. They are chosen to fall on both sides of what names, labels, ports, counts, shares, addresses,
// quantities and times may be.
var (
	oddStrings = []any{"", "x", "Bad_Value!", "UPPER", "a.b", "a/b", "-1", "10.0.0.1", "fd00::1", "10.0.0.0/24", "80", "50%", "150%", "*", "../x", "/abs/../x",
		"example.com/name", "kubernetes.io/thing", strings.Repeat("a", 64), strings.Repeat("b", 254), "2020-01-01T00:00:00Z", "ünï"}
	oddNumbers = []any{int64(0), int64(1), int64(-1), int64(2), int64(101), int64(1000), int64(65536), int64(2147483647), int64(4294967296)}
	oddKeys    = []string{"Bad Key!", "a/b/c", strings.Repeat("k", 64), "kubernetes.io/odd", "x"}
)

// mutations lists the changes of an object, that its schema and its own content suggest, at and below under (nothing: everywhere).
func mutations(s *schemas, root string, object map[string]any, under ...string) []mutation {
	w := &walker{schemas: s, under: under}
	w.value(nil, object, s.byName(root))
	return w.out
}

type walker struct {
	schemas *schemas
	under   []string
	out     []mutation
}

func (w *walker) add(path []any, op string, to any) {
	w.out = append(w.out, mutation{slices.Clone(path), op, to})
}

func (w *walker) value(path []any, v any, sc *schema) {
	switch v := v.(type) {
	case map[string]any:
		w.object(path, v, sc)
	case []any:
		w.list(path, v, sc)
	case string:
		w.odd(path, "string", v, oddStrings)
		w.odd(path, "enum", v, w.schemas.enum(sc))
		if !strings.Contains(v, " ") && v != "" {
			w.add(path, "longer", v+"x")
		}
	case int64, float64:
		w.odd(path, "number", v, oddNumbers)
	case bool:
		w.add(path, "flip", !v)
	}
}

// odd tries all values but the one that is there.
func (w *walker) odd(path []any, op string, have any, values []any) {
	for _, o := range values {
		if o != have {
			w.add(path, op, o)
		}
	}
}

// skipped fields are the kind's own, metadata that no client writes, and those that nobody asked for.
func (w *walker) skipped(path []any, field string) bool {
	switch {
	case len(path) == 0:
		return field == "apiVersion" || field == "kind" || len(w.under) > 0 && !slices.Contains(w.under, field)
	case len(path) == 1 && path[0] == "metadata":
		return !metaField(field)
	}
	return false
}

func (w *walker) object(path []any, v map[string]any, sc *schema) {
	if len(path) > 0 {
		w.add(path, "empty", map[string]any{})
	}
	for _, k := range sortedKeys(v) {
		if at := append(slices.Clone(path), k); !w.skipped(path, k) {
			w.add(at, "remove", absent{})
			w.value(at, v[k], w.schemas.field(sc, k))
		}
	}
	if len(path) == 1 && path[0] == "metadata" {
		return
	}
	if w.schemas.isMap(sc) {
		var like any = "v"
		for _, have := range v {
			like = have
			break
		}
		for _, k := range oddKeys {
			w.add(append(slices.Clone(path), k), "key", like)
		}
	}
	for _, k := range w.schemas.fields(sc) {
		if _, has := v[k]; has || w.skipped(path, k) || len(path) == 0 && k == "metadata" {
			continue
		}
		for _, c := range w.schemas.candidates(w.schemas.field(sc, k), 0) {
			w.add(append(slices.Clone(path), k), "add", c)
		}
	}
}

func (w *walker) list(path []any, v []any, sc *schema) {
	w.add(path, "empty", []any{})
	if len(v) > 0 {
		w.add(path, "twice", insert{v[0]})
		switch v[0].(type) {
		case map[string]any:
			w.add(path, "blank", insert{map[string]any{}})
		case string:
			for _, o := range oddStrings {
				w.add(path, "item", insert{o})
			}
		}
	}
	if len(v) > 1 {
		swapped := slices.Clone(v)
		swapped[0], swapped[1] = swapped[1], swapped[0]
		w.add(path, "swap", swapped)
	}
	for i, item := range v {
		at := append(slices.Clone(path), i)
		w.add(at, "remove", absent{})
		w.value(at, item, w.schemas.items(sc))
	}
}

func metaField(k string) bool {
	return k == "name" || k == "labels" || k == "annotations" || k == "finalizers" || k == "ownerReferences"
}
