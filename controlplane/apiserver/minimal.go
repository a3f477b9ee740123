package apiserver

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/controlplane/resource"
)

func row[T, L any, PT interface {
	*T
	runtime.Object
}, PL interface {
	*L
	runtime.Object
}](kind, plural string, namespaced bool) resource.Kind {
	return resource.Kind{Kind: kind, Plural: plural, Namespaced: namespaced,
		New: func() runtime.Object { return PT(new(T)) }, NewList: func() runtime.Object { return PL(new(L)) }}
}

func minimal() resource.Group {
	pod := row[corev1.Pod, corev1.PodList]("Pod", "pods", true)
	pod.ShortNames = []string{"po"}
	pod.HasStatus, pod.HasGeneration = true, true
	pod = resource.Of(pod, resource.Rules[*corev1.Pod]{Fields: func(p *corev1.Pod) fields.Set { return fields.Set{"spec.nodeName": p.Spec.NodeName} }})
	return resource.Group{Versions: []string{"v1"}, AddToScheme: []func(*runtime.Scheme) error{corev1.AddToScheme}, Kinds: []resource.Kind{
		pod, row[corev1.ConfigMap, corev1.ConfigMapList]("ConfigMap", "configmaps", true),
		row[corev1.Secret, corev1.SecretList]("Secret", "secrets", true),
		row[corev1.Namespace, corev1.NamespaceList]("Namespace", "namespaces", false),
		row[corev1.ServiceAccount, corev1.ServiceAccountList]("ServiceAccount", "serviceaccounts", true),
		row[corev1.Service, corev1.ServiceList]("Service", "services", true),
		row[corev1.Node, corev1.NodeList]("Node", "nodes", false),
	}}
}
