package certificates

import (
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/controlplane/resource"
)

// Group is certificates.k8s.io.
func Group() resource.Group {
	return resource.Group{
		Name:        certificatesv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{certificatesv1.AddToScheme},
		Kinds:       []resource.Kind{signingRequest(), trustBundle(), podRequest()},
	}
}
