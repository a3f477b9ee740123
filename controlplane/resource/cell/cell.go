package cell

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"keelson.dev/keelson/controlplane/resource"
)

// Name is the column NAME, for kinds that print all their columns themselves (NoAge).
func Name() resource.Column {
	return resource.Column{
		Name:        "Name",
		Type:        "string",
		Format:      "name",
		Description: metav1.ObjectMeta{}.SwaggerDoc()["name"],
		Value: func(obj runtime.Object) any {
			m, err := meta.Accessor(obj)
			if err != nil {
				return ""
			}
			return m.GetName()
		},
	}
}

// DefaultName is Name, marked for the object that is its kind's default.
func DefaultName[T metav1.Object](isDefault func(T) bool) resource.Column {
	c := Name()
	c.Value = func(obj runtime.Object) any {
		o := obj.(T)
		if isDefault(o) {
			return o.GetName() + " (default)"
		}
		return o.GetName()
	}
	return c
}

// Age is the column AGE, for kinds that print all their columns themselves (NoAge).
func Age() resource.Column {
	return resource.Column{
		Name:        "Age",
		Type:        "string",
		Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"],
		Value: func(obj runtime.Object) any {
			m, err := meta.Accessor(obj)
			if err != nil {
				return "<unknown>"
			}
			return Since(m.GetCreationTimestamp())
		},
	}
}

// Created is the column of kinds that say when they were made in place of how long ago that is.
func Created() resource.Column {
	return resource.Column{
		Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"],
		Value: func(obj runtime.Object) any {
			m, err := meta.Accessor(obj)
			if err != nil {
				return nil
			}
			return m.GetCreationTimestamp().UTC().Format("2006-01-02T15:04:05Z")
		},
	}
}

// Since is how long ago t was, in kubectl's short form; "<unknown>" for no time.
func Since(t metav1.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(t.Time))
}

// SinceMicro is Since for a time with microseconds.
func SinceMicro(t metav1.MicroTime) string { return Since(metav1.Time(t)) }

// Between is the time from start to end, or to now if end is nil; empty without a start.
func Between(start, end *metav1.Time) string {
	switch {
	case start == nil:
		return ""
	case end == nil:
		return duration.HumanDuration(time.Since(start.Time))
	}
	return duration.HumanDuration(end.Sub(start.Time))
}

// Template are the wide columns CONTAINERS and IMAGES of a kind with a pod template.
func Template[T runtime.Object](spec func(T) *corev1.PodSpec) []resource.Column {
	return []resource.Column{
		resource.Col("Containers", "string", "Names of each container in the template.", 1, func(o T) any {
			return join(spec(o).Containers, func(c corev1.Container) string { return c.Name })
		}),
		resource.Col("Images", "string", "Images referenced by each container in the template.", 1, func(o T) any {
			return join(spec(o).Containers, func(c corev1.Container) string { return c.Image })
		}),
	}
}

// Bool is "True", "False", or "<unset>" for nil.
func Bool(b *bool) string {
	switch {
	case b == nil:
		return "<unset>"
	case *b:
		return "True"
	}
	return "False"
}

// Or is *s, or otherwise if s is nil.
func Or[S ~string](s *S, otherwise string) string {
	if s == nil {
		return otherwise
	}
	return string(*s)
}

// List joins the first three items of list, says how many more there are, and is "<unset>" without any.
func List(list []string) string {
	const most = 3
	switch {
	case len(list) == 0:
		return "<unset>"
	case len(list) > most:
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:most], ","), len(list)-most)
	}
	return strings.Join(list, ",")
}

func join[E any](list []E, text func(E) string) string {
	texts := make([]string, len(list))
	for i, e := range list {
		texts[i] = text(e)
	}
	return strings.Join(texts, ",")
}
