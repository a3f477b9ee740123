package column

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"keelson.dev/keelson/controlplane/resource"
)

// Name is the NAME column, for kinds that set NoAge and so list all their columns.
func Name(priority int32) resource.Column {
	return resource.Column{
		Name: "Name", Type: "string", Format: "name", Priority: priority, Description: Doc(metav1.ObjectMeta{}, "name"),
		Value: func(obj runtime.Object) any {
			if o, ok := obj.(metav1.Object); ok {
				return o.GetName()
			}
			return "<unknown>"
		},
	}
}

// Age is the AGE column, for kinds that print it elsewhere than last.
func Age() resource.Column {
	return resource.Column{
		Name: "Age", Type: "string", Description: Doc(metav1.ObjectMeta{}, "creationTimestamp"),
		Value: func(obj runtime.Object) any {
			o, ok := obj.(metav1.Object)
			if !ok {
				return "<unknown>"
			}
			return Since(o.GetCreationTimestamp().Time)
		},
	}
}

// Since prints the time passed since t in kubectl's way: 5s, 3m20s, 4d.
func Since(t time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(t))
}

// Names joins the containers' names with commas.
func Names(containers []corev1.Container) string {
	return join(containers, func(c corev1.Container) string { return c.Name })
}

// Images joins the containers' images with commas.
func Images(containers []corev1.Container) string {
	return join(containers, func(c corev1.Container) string { return c.Image })
}

func join(containers []corev1.Container, part func(corev1.Container) string) string {
	parts := make([]string, len(containers))
	for i, c := range containers {
		parts[i] = part(c)
	}
	return strings.Join(parts, ",")
}

// Or returns s, or what is printed in its place if it is empty.
func Or(s, empty string) string {
	if s == "" {
		return empty
	}
	return s
}

// Doc returns the published description of a field of an API type, as upstream's columns quote it.
func Doc(of interface{ SwaggerDoc() map[string]string }, field string) string {
	return of.SwaggerDoc()[field]
}
