package check

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// Plain is v as errors show a whole struct: upstream prints its internal types, which have no JSON tags, so fields
// go by their Go names and none is left out. What is not of the API's own types (metadata, quantities) is as usual.
func Plain(v any) json.RawMessage {
	var b bytes.Buffer
	plain(&b, reflect.ValueOf(v))
	return b.Bytes()
}

func plain(b *bytes.Buffer, v reflect.Value) {
	switch {
	case !v.IsValid():
		b.WriteString("null")
	case v.Kind() == reflect.Pointer && !v.IsNil() && tagged(v.Type().Elem()):
		plain(b, v.Elem())
	case v.Kind() == reflect.Struct && tagged(v.Type()):
		b.WriteByte('{')
		plainFields(b, v)
		b.WriteByte('}')
	case v.Kind() == reflect.Slice && !v.IsNil() && tagged(v.Type().Elem()):
		b.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				b.WriteByte(',')
			}
			plain(b, v.Index(i))
		}
		b.WriteByte(']')
	case v.Kind() == reflect.Map && !v.IsNil() && tagged(v.Type().Elem()):
		plainMap(b, v)
	default:
		raw, _ := json.Marshal(v.Interface()) // values that came as JSON
		b.Write(raw)
	}
}

func plainFields(b *bytes.Buffer, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous && tagged(f.Type) {
			plainFields(b, v.Field(i))
			continue
		}
		if f.Anonymous { // metadata, whose fields come among the others with their tags
			raw, _ := json.Marshal(v.Field(i).Interface())
			b.Write(raw[1 : len(raw)-1])
			continue
		}
		if !strings.HasSuffix(b.String(), "{") {
			b.WriteByte(',')
		}
		b.WriteString(`"` + f.Name + `":`)
		plain(b, v.Field(i))
	}
}

func plainMap(b *bytes.Buffer, v reflect.Value) {
	b.WriteByte('{')
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for i, k := range keys {
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(k.String())
		b.Write(append(name, ':'))
		plain(b, v.MapIndex(k))
	}
	b.WriteByte('}')
}

// tagged tells whether t is one of the API's own structs, or made of them.
func tagged(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return tagged(t.Elem())
	case reflect.Struct:
		return strings.HasPrefix(t.PkgPath(), "k8s.io/api/")
	}
	return false
}
