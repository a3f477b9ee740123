package main

import (
	"fmt"
	"maps"
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

// mutations lists the changes of an object, that its schema and its own content suggest, at and below under.
func mutations(s *schemas, root string, object map[string]any, under ...string) []mutation {
	var out []mutation
	var walk func(path []any, v any, sc *schema)
	add := func(path []any, op string, to any) {
		out = append(out, mutation{slices.Clone(path), op, to})
	}
	walk = func(path []any, v any, sc *schema) {
		if len(path) > 0 && len(under) > 0 && !slices.Contains(under, path[0].(string)) {
			return
		}
		switch v := v.(type) {
		case map[string]any:
			if len(path) > 0 {
				add(path, "empty", map[string]any{})
			}
			for _, k := range slices.Sorted(maps.Keys(v)) {
				at := append(slices.Clone(path), k)
				if len(path) == 0 && len(under) > 0 && !slices.Contains(under, k) {
					continue
				}
				if len(path) == 0 && (k == "apiVersion" || k == "kind") || len(path) == 1 && path[0] == "metadata" && !metaField(k) {
					continue
				}
				add(at, "remove", absent{})
				walk(at, v[k], s.field(sc, k))
			}
			if len(path) == 1 && path[0] == "metadata" {
				return
			}
			if s.isMap(sc) {
				for _, k := range oddKeys {
					var val any = "v"
					for _, have := range v {
						val = have
						break
					}
					add(append(slices.Clone(path), k), "key", val)
				}
			}
			for _, k := range s.fields(sc) {
				if _, ok := v[k]; ok || len(path) == 0 && (k == "apiVersion" || k == "kind" || k == "metadata") {
					continue
				}
				at := append(slices.Clone(path), k)
				if len(under) > 0 && len(path) == 0 && !slices.Contains(under, k) {
					continue
				}
				for _, c := range s.candidates(s.field(sc, k), 0) {
					add(at, "add", c)
				}
			}
		case []any:
			add(path, "empty", []any{})
			if len(v) > 0 {
				add(path, "twice", insert{v[0]})
				switch first := v[0].(type) {
				case map[string]any:
					add(path, "blank", insert{map[string]any{}})
				case string:
					for _, o := range oddStrings {
						add(path, "item", insert{o})
					}
					_ = first
				}
			}
			if len(v) > 1 {
				swapped := slices.Clone(v)
				swapped[0], swapped[1] = swapped[1], swapped[0]
				add(path, "swap", swapped)
			}
			for i, item := range v {
				at := append(slices.Clone(path), i)
				add(at, "remove", absent{})
				walk(at, item, s.items(sc))
			}
		case string:
			for _, o := range oddStrings {
				if o != v {
					add(path, "string", o)
				}
			}
			for _, e := range s.enum(sc) {
				if e != v {
					add(path, "enum", e)
				}
			}
			if !strings.Contains(v, " ") && v != "" {
				add(path, "longer", v+"x")
			}
		case int64, float64:
			for _, o := range oddNumbers {
				if o != v {
					add(path, "number", o)
				}
			}
		case bool:
			add(path, "flip", !v)
		}
	}
	walk(nil, object, s.byName(root))
	return out
}

func metaField(k string) bool {
	return k == "name" || k == "labels" || k == "annotations" || k == "finalizers" || k == "ownerReferences"
}
