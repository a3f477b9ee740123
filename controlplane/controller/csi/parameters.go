package csi

import (
	"fmt"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

const prefix = "csi.storage.k8s.io/"

// parameters is a class' parameters, read: the driver's own, and those that are said to whoever provisions.
type parameters struct {
	own     map[string]string
	fsType  string
	secrets map[string]*corev1.SecretReference // by the role: "provisioner", "node-stage", ...
}

// roles are what secrets are for.
var roles = []string{"provisioner", "controller-publish", "node-stage", "node-publish", "controller-expand", "node-expand"}

// readParameters is pure. Templates of secrets' names may use the names of claim and volume and, but for the provisioner's, the claim's annotations.
func readParameters(all map[string]string, claim *corev1.PersistentVolumeClaim, volume string) (parameters, error) {
	p := parameters{own: map[string]string{}, secrets: map[string]*corev1.SecretReference{}}
	said := map[string]string{}
	for k, v := range all {
		if name, ok := strings.CutPrefix(k, prefix); ok {
			said[name] = v
		} else {
			p.own[k] = v
		}
	}
	p.fsType = said["fstype"]
	delete(said, "fstype")
	for _, role := range roles {
		name, namespace := said[role+"-secret-name"], said[role+"-secret-namespace"]
		delete(said, role+"-secret-name")
		delete(said, role+"-secret-namespace")
		if name == "" && namespace == "" {
			continue
		}
		ref := &corev1.SecretReference{Name: fill(name, claim, volume), Namespace: fill(namespace, claim, volume)}
		if len(validation.IsDNS1123Subdomain(ref.Name)) > 0 || len(validation.IsDNS1123Label(ref.Namespace)) > 0 {
			return p, fmt.Errorf("the class' parameters name the secret %q in the namespace %q for %s, which cannot be", ref.Name, ref.Namespace, role)
		}
		p.secrets[role] = ref
	}
	for name := range said {
		return p, fmt.Errorf("the class has the parameter %s%s, which is not known", prefix, name)
	}
	return p, nil
}

// fill expands a template. What it does not know it expands to nothing, and then the name cannot be.
func fill(template string, claim *corev1.PersistentVolumeClaim, volume string) string {
	return os.Expand(template, func(key string) string {
		switch key {
		case "pvc.name":
			return claim.Name
		case "pvc.namespace":
			return claim.Namespace
		case "pv.name":
			return volume
		}
		if name, ok := strings.CutPrefix(key, "pvc.annotations['"); ok {
			return claim.Annotations[strings.TrimSuffix(name, "']")]
		}
		return ""
	})
}
