package networking

import (
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/controlplane/resource"
)

// Group is networking.k8s.io.
func Group() resource.Group {
	return resource.Group{
		Name:        networkingv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{networkingv1.AddToScheme},
		Kinds:       []resource.Kind{ingressClass(), ingress(), ipAddress(), networkPolicy(), serviceCIDR()},
	}
}
