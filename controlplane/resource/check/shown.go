package check

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Tidy gives errors the form in which upstream answers them: each is said once, and a value of several fields is Shown.
func Tidy(errs field.ErrorList) field.ErrorList {
	var out field.ErrorList
	seen := map[string]bool{}
	for _, e := range errs {
		e.BadValue = Shown(e.BadValue)
		if text := e.Error(); !seen[text] {
			seen[text] = true
			out = append(out, e)
		}
	}
	return out
}

// Shown is v as messages print it. Upstream validates types that have no JSON names, so what it prints has the names of
// Go's fields, and empty fields as well.
func Shown(v any) any {
	t := reflect.TypeOf(v)
	if t == nil || !holdsPublished(t) {
		return v
	}
	return shown{reflect.ValueOf(v)}
}

// Declared gives the errors of a rule that upstream declares with the published type: what they show has its JSON names.
func Declared(errs field.ErrorList) field.ErrorList {
	for _, e := range errs {
		if t := reflect.TypeOf(e.BadValue); t != nil && holdsPublished(t) {
			e.BadValue = declared{e.BadValue}
		}
	}
	return errs
}

// declared is a value that Shown leaves as it is.
type declared struct{ value any }

func (d declared) MarshalJSON() ([]byte, error) { return json.Marshal(d.value) }

func holdsPublished(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return holdsPublished(t.Elem())
	case reflect.Struct:
		return published(t)
	}
	return false
}

// published: the machinery's own types (times, selectors, metadata) are the same inside and outside.
func published(t reflect.Type) bool { return strings.HasPrefix(t.PkgPath(), "k8s.io/api/") }

type shown struct{ v reflect.Value }

func (s shown) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	err := write(&b, s.v)
	return b.Bytes(), err
}

func write(b *bytes.Buffer, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		if v.IsNil() || !holdsPublished(v.Type()) {
			return writeJSON(b, v)
		}
	}
	switch {
	case v.Kind() == reflect.Pointer:
		return write(b, v.Elem())
	case v.Kind() == reflect.Slice:
		return writeList(b, v)
	case v.Kind() == reflect.Map:
		return writeMap(b, v)
	case v.Kind() == reflect.Struct && published(v.Type()):
		b.WriteByte('{')
		if err := writeFields(b, v); err != nil {
			return err
		}
		b.WriteByte('}')
		return nil
	}
	return writeJSON(b, v)
}

func writeJSON(b *bytes.Buffer, v reflect.Value) error {
	raw, err := json.Marshal(v.Interface())
	b.Write(raw)
	return err
}

// comma goes before every item but the first.
func comma(b *bytes.Buffer) {
	if last := b.Bytes()[b.Len()-1]; last != '{' && last != '[' {
		b.WriteByte(',')
	}
}

func writeList(b *bytes.Buffer, v reflect.Value) error {
	b.WriteByte('[')
	for i := range v.Len() {
		comma(b)
		if err := write(b, v.Index(i)); err != nil {
			return err
		}
	}
	b.WriteByte(']')
	return nil
}

func writeMap(b *bytes.Buffer, v reflect.Value) error {
	items := map[string]reflect.Value{}
	for key, item := range v.Seq2() {
		items[key.String()] = item
	}
	b.WriteByte('{')
	for _, key := range slices.Sorted(maps.Keys(items)) {
		comma(b)
		if err := writeNamed(b, key, items[key]); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

func writeNamed(b *bytes.Buffer, name string, v reflect.Value) error {
	raw, err := json.Marshal(name)
	if err != nil {
		return err
	}
	b.Write(raw)
	b.WriteByte(':')
	return write(b, v)
}

// writeFields writes the fields of a struct; those of an embedded one are the struct's own.
func writeFields(b *bytes.Buffer, v reflect.Value) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		var err error
		switch {
		case f.Type == reflect.TypeFor[metav1.TypeMeta](): // what upstream validates has lost it
		case !f.Anonymous:
			comma(b)
			err = writeNamed(b, f.Name, v.Field(i))
		case published(f.Type):
			err = writeFields(b, v.Field(i))
		default:
			err = writeEmbedded(b, v.Field(i))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func writeEmbedded(b *bytes.Buffer, v reflect.Value) error {
	raw, err := json.Marshal(v.Interface())
	if err == nil && len(raw) > len("{}") {
		comma(b)
		b.Write(raw[1 : len(raw)-1])
	}
	return err
}
