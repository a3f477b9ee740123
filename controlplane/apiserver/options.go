package apiserver

import (
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
)

// connectOptions are the query options of connect subresources. They come as a query, not as an object, and
// k8s.io/api does not publish their conversions.
var connectOptions = []struct {
	object runtime.Object
	read   conversion.ConversionFunc
}{
	{&corev1.PodLogOptions{}, fromQuery(nil)},
	{&corev1.PodExecOptions{}, fromQuery(outputs)},
	{&corev1.PodAttachOptions{}, fromQuery(outputs)},
	{&corev1.PodPortForwardOptions{}, fromQuery(nil)},
	{&corev1.PodProxyOptions{}, fromQuery(nil)},
	{&corev1.NodeProxyOptions{}, fromQuery(nil)},
	{&corev1.ServiceProxyOptions{}, fromQuery(nil)},
}

// outputs are the streams of who names none. Who names one gets only what is named: a kubelet waits for each stream
// that it is told of, and a client that did not ask for it would never open it.
var outputs = url.Values{"stdout": {"true"}, "stderr": {"true"}}

// fromQuery converts a query to an options object by the names of its JSON fields. defaults hold if the query names no
// stream.
func fromQuery(defaults url.Values) conversion.ConversionFunc {
	return func(in, out any, _ conversion.Scope) error {
		values := *in.(*url.Values)
		defaults := defaults
		if values.Has("stdin") || values.Has("stdout") || values.Has("stderr") {
			defaults = nil
		}
		v := reflect.ValueOf(out).Elem()
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			given, ok := values[name]
			if !ok {
				given, ok = defaults[name]
			}
			if name == "" || !ok || len(given) == 0 {
				continue
			}
			if err := setField(v.Field(i), given); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}
}

func setField(f reflect.Value, given []string) error {
	if f.Kind() == reflect.Pointer {
		f.Set(reflect.New(f.Type().Elem()))
		f = f.Elem()
	}
	if t, ok := f.Addr().Interface().(*metav1.Time); ok {
		parsed, err := time.Parse(time.RFC3339, given[0])
		if err != nil {
			return err
		}
		t.Time = parsed.Local()
		return nil
	}
	switch f.Kind() {
	case reflect.String:
		f.SetString(given[0])
	case reflect.Bool:
		f.SetBool(truth(given[0]))
	case reflect.Int64, reflect.Int32:
		n, err := strconv.ParseInt(given[0], 10, f.Type().Bits())
		if err != nil {
			return err
		}
		f.SetInt(n)
	case reflect.Slice:
		s := reflect.MakeSlice(f.Type(), len(given), len(given))
		for i := range given {
			if err := setField(s.Index(i), given[i:i+1]); err != nil {
				return err
			}
		}
		f.Set(s)
	default:
		return fmt.Errorf("cannot read a %s from a query", f.Type())
	}
	return nil
}

// truth reads a query's boolean as upstream does: a bare "?stdin" is true, and so is anything but false and 0.
func truth(s string) bool {
	return !strings.EqualFold(s, "false") && s != "0"
}
