package main

import (
	"maps"
	"slices"
	"strings"
)

// schema is the part of an OpenAPI v3 schema that says which shape a value has.
type schema struct {
	Ref        string             `json:"$ref"`
	AllOf      []*schema          `json:"allOf"`
	Type       string             `json:"type"`
	Format     string             `json:"format"`
	Properties map[string]*schema `json:"properties"`
	Items      *schema            `json:"items"`
	Additional *schema            `json:"additionalProperties"`
	Enum       []any              `json:"enum"`
	OneOf      []*schema          `json:"oneOf"`
	Kinds      []struct {
		Group, Version, Kind string
	} `json:"x-kubernetes-group-version-kind"`
}

// schemas are the named schemas of one group and version.
type schemas struct{ names map[string]*schema }

func (s *schemas) byName(name string) *schema { return s.names[name] }

func (s *schemas) rootOf(group, version, kind string) string {
	for name, sc := range s.names {
		for _, k := range sc.Kinds {
			if k.Group == group && k.Version == version && k.Kind == kind && len(sc.Kinds) == 1 {
				return name
			}
		}
	}
	return ""
}

func (s *schemas) resolve(sc *schema) *schema {
	for sc != nil {
		switch {
		case sc.Ref != "":
			sc = s.names[strings.TrimPrefix(sc.Ref, "#/components/schemas/")]
		case len(sc.AllOf) == 1 && sc.Type == "" && sc.Properties == nil:
			sc = sc.AllOf[0]
		default:
			return sc
		}
	}
	return nil
}

func (s *schemas) field(sc *schema, name string) *schema {
	sc = s.resolve(sc)
	if sc == nil {
		return nil
	}
	if f := sc.Properties[name]; f != nil {
		return f
	}
	return sc.Additional
}

func (s *schemas) items(sc *schema) *schema {
	if sc = s.resolve(sc); sc == nil {
		return nil
	}
	return sc.Items
}

func (s *schemas) isMap(sc *schema) bool {
	sc = s.resolve(sc)
	return sc != nil && sc.Additional != nil
}

func (s *schemas) fields(sc *schema) []string {
	if sc = s.resolve(sc); sc == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(sc.Properties))
}

func (s *schemas) enum(sc *schema) []any {
	if sc = s.resolve(sc); sc == nil {
		return nil
	}
	return sc.Enum
}

// candidates are values for a field that an object does not have.
func (s *schemas) candidates(sc *schema, depth int) []any {
	raw := sc
	sc = s.resolve(sc)
	if sc == nil || depth > 2 {
		return nil
	}
	ref := refOf(raw)
	switch {
	case strings.HasSuffix(ref, "Quantity"):
		return []any{"1", "-1", "100m", "0"}
	case strings.HasSuffix(ref, "MicroTime"):
		return []any{"2020-01-01T00:00:00.000000Z"}
	case strings.HasSuffix(ref, ".Time"):
		return []any{"2020-01-01T00:00:00Z"}
	case strings.HasSuffix(ref, "IntOrString"):
		return []any{int64(1), int64(-1), int64(0), "50%", "x", "150%"}
	}
	switch {
	case len(sc.Enum) > 0:
		return append([]any{"x", ""}, sc.Enum...)
	case sc.Format == "byte":
		return []any{"eA=="}
	case sc.Type == "string":
		return []any{"x", "", "Bad_Value!", "10.0.0.1", "/x"}
	case sc.Type == "integer" || sc.Type == "number":
		return []any{int64(1), int64(-1), int64(0), int64(100000)}
	case sc.Type == "boolean":
		return []any{true, false}
	case sc.Type == "array":
		out := []any{[]any{}}
		for _, c := range s.candidates(sc.Items, depth+1) {
			out = append(out, []any{c})
		}
		return out
	case sc.Additional != nil:
		out := []any{map[string]any{}}
		for i, c := range s.candidates(sc.Additional, depth+1) {
			if i < 2 {
				out = append(out, map[string]any{"x": c}, map[string]any{"Bad Key!": c})
			}
		}
		return out
	case sc.Properties != nil:
		out := []any{map[string]any{}}
		for _, f := range slices.Sorted(maps.Keys(sc.Properties)) {
			for i, c := range s.candidates(sc.Properties[f], depth+1) {
				if i < 3 {
					out = append(out, map[string]any{f: c})
				}
			}
		}
		return out
	}
	return nil
}

func refOf(sc *schema) string {
	switch {
	case sc == nil:
		return ""
	case sc.Ref != "":
		return sc.Ref
	case len(sc.AllOf) == 1:
		return refOf(sc.AllOf[0])
	}
	return ""
}
