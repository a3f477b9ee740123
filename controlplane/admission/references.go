package admission

import (
	"fmt"
	"iter"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// secretsOf yields each secret that the pod refers to, with what refers to it.
func secretsOf(pod *corev1.Pod) iter.Seq2[string, string] {
	return func(yield func(where, name string) bool) {
		for _, s := range pod.Spec.ImagePullSecrets {
			if !yield("imagePullSecret", s.Name) {
				return
			}
		}
		for where, env := range environments(pod) {
			for _, f := range env.from {
				if f.SecretRef != nil && !yield(where, f.SecretRef.Name) {
					return
				}
			}
			for _, e := range env.vars {
				if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && !yield(where, e.ValueFrom.SecretKeyRef.Name) {
					return
				}
			}
		}
		for i := range pod.Spec.Volumes {
			for _, name := range volumeSecrets(&pod.Spec.Volumes[i]) {
				if name != "" && !yield(fmt.Sprintf("volume %q", pod.Spec.Volumes[i].Name), name) {
					return
				}
			}
		}
	}
}

// refersToConfigMap says whether any part of the pod reads a config map.
func refersToConfigMap(pod *corev1.Pod) bool {
	for _, env := range environments(pod) {
		for _, f := range env.from {
			if f.ConfigMapRef != nil {
				return true
			}
		}
		for _, e := range env.vars {
			if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
				return true
			}
		}
	}
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.ConfigMap != nil || v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ConfigMap != nil
		})
	})
}

type environment struct {
	vars []corev1.EnvVar
	from []corev1.EnvFromSource
}

// environments yields each container's environment under the container's name.
func environments(pod *corev1.Pod) iter.Seq2[string, environment] {
	return func(yield func(string, environment) bool) {
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			if !yield(fmt.Sprintf("container %q", c.Name), environment{c.Env, c.EnvFrom}) {
				return
			}
		}
		for _, c := range pod.Spec.EphemeralContainers {
			if !yield(fmt.Sprintf("ephemeral container %q", c.Name), environment{c.Env, c.EnvFrom}) {
				return
			}
		}
	}
}

// volumeSecrets are the names of the secrets that a volume needs.
func volumeSecrets(v *corev1.Volume) []string {
	local := func(r *corev1.LocalObjectReference) []string {
		if r == nil {
			return nil
		}
		return []string{r.Name}
	}
	switch s := v.VolumeSource; {
	case s.Secret != nil:
		return []string{s.Secret.SecretName}
	case s.Projected != nil:
		var names []string
		for _, p := range s.Projected.Sources {
			if p.Secret != nil {
				names = append(names, p.Secret.Name)
			}
		}
		return names
	case s.AzureFile != nil:
		return []string{s.AzureFile.SecretName}
	case s.CephFS != nil:
		return local(s.CephFS.SecretRef)
	case s.Cinder != nil:
		return local(s.Cinder.SecretRef)
	case s.FlexVolume != nil:
		return local(s.FlexVolume.SecretRef)
	case s.RBD != nil:
		return local(s.RBD.SecretRef)
	case s.ScaleIO != nil:
		return local(s.ScaleIO.SecretRef)
	case s.ISCSI != nil:
		return local(s.ISCSI.SecretRef)
	case s.StorageOS != nil:
		return local(s.StorageOS.SecretRef)
	case s.CSI != nil:
		return local(s.CSI.NodePublishSecretRef)
	}
	return nil
}
