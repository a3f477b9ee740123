package column

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/controlplane/resource"
)

// Name is the NAME column, for kinds that set NoAge and so list all their columns. Priority 1 shows it only with -o wide.
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
