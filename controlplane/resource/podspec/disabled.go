package podspec

import (
	corev1 "k8s.io/api/core/v1"
)

// DropDisabled clears the fields of features that upstream has switched off by default in this release, so that an
// object reads back without them, as upstream's does. None can be stored, so none is in use.
func DropDisabled(spec *corev1.PodSpec) {
	spec.SchedulingGroup, spec.EvictionResponders = nil, nil
	for i := range spec.Volumes {
		dropVolumeFields(&spec.Volumes[i].VolumeSource)
	}
	for c := range Containers(spec, nil) {
		for i := range c.VolumeMounts {
			c.VolumeMounts[i].BindMountOptions = nil
		}
		for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			if p == nil {
				continue
			}
			if p.GRPC != nil {
				p.GRPC.Mode = nil
			}
			if p.HTTPGet != nil {
				p.HTTPGet.Protocol = nil
			}
		}
		dropLifecycleFields(c)
	}
}

func dropLifecycleFields(c *corev1.Container) {
	l := c.Lifecycle
	if l == nil {
		return
	}
	for _, h := range []*corev1.LifecycleHandler{l.PostStart, l.PreStop} {
		if h != nil && h.HTTPGet != nil {
			h.HTTPGet.Protocol = nil
		}
	}
	if l.StopSignal == nil {
		return
	}
	l.StopSignal = nil
	if *l == (corev1.Lifecycle{}) {
		c.Lifecycle = nil
	}
}

func dropVolumeFields(v *corev1.VolumeSource) {
	if v.EmptyDir != nil {
		v.EmptyDir.Mode = nil
	}
	if v.Secret != nil {
		v.Secret.DefaultUser = nil
		dropUsers(v.Secret.Items)
	}
	if v.ConfigMap != nil {
		v.ConfigMap.DefaultUser = nil
		dropUsers(v.ConfigMap.Items)
	}
	if v.DownwardAPI != nil {
		v.DownwardAPI.DefaultUser = nil
		dropFileUsers(v.DownwardAPI.Items)
	}
	if v.Projected == nil {
		return
	}
	v.Projected.DefaultUser = nil
	for i := range v.Projected.Sources {
		dropProjectedUsers(&v.Projected.Sources[i])
	}
}

func dropProjectedUsers(s *corev1.VolumeProjection) {
	if s.Secret != nil {
		dropUsers(s.Secret.Items)
	}
	if s.ConfigMap != nil {
		dropUsers(s.ConfigMap.Items)
	}
	if s.DownwardAPI != nil {
		dropFileUsers(s.DownwardAPI.Items)
	}
	if s.ServiceAccountToken != nil {
		s.ServiceAccountToken.User = nil
	}
	if s.ClusterTrustBundle != nil {
		s.ClusterTrustBundle.User = nil
	}
	if s.PodCertificate != nil {
		s.PodCertificate.User = nil
	}
}

func dropUsers(items []corev1.KeyToPath) {
	for i := range items {
		items[i].User = nil
	}
}

func dropFileUsers(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		items[i].User = nil
	}
}
