package projected

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/volume/atomicdir"
	"keelson.dev/keelson/volume/configmap"
	"keelson.dev/keelson/volume/downward"
	"keelson.dev/keelson/volume/secret"
)

// Sources answers what the sources name. A nil object with a nil error means that it does not exist.
type Sources interface {
	Identity
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	Allocatable(ctx context.Context) (corev1.ResourceList, error)
}

// Identity is what a pod shows others, and knows them by.
type Identity interface {
	Token(ctx context.Context, pod *corev1.Pod, p *corev1.ServiceAccountTokenProjection) (string, error)
	// Roots are trust anchors, as PEM; nil: nothing that is selected exists.
	Roots(ctx context.Context, p *corev1.ClusterTrustBundleProjection) ([]byte, error)
	// Certificate is the pod's own, and its key, as PEM.
	Certificate(ctx context.Context, pod *corev1.Pod, p *corev1.PodCertificateProjection) (key, chain []byte, err error)
}

// Owner is who must be able to read a token or a key: a user that all containers run as, or a group of the pod.
type Owner struct{ UID, Group *int64 }

// Files lists the files of a projected volume.
func Files(ctx context.Context, pod *corev1.Pod, v *corev1.ProjectedVolumeSource, own Owner, from Sources) (map[string]atomicdir.File, error) {
	mode := int32(0o644)
	if v.DefaultMode != nil {
		mode = *v.DefaultMode
	}
	out := map[string]atomicdir.File{}
	for _, s := range v.Sources {
		files, err := source(ctx, pod, s, mode, own, from)
		if err != nil {
			return nil, err
		}
		maps.Copy(out, files)
	}
	return out, nil
}

func source(ctx context.Context, pod *corev1.Pod, s corev1.VolumeProjection, mode int32, own Owner, from Sources) (map[string]atomicdir.File, error) {
	switch {
	case s.ConfigMap != nil:
		cm, err := from.ConfigMap(ctx, pod.Namespace, s.ConfigMap.Name)
		if err != nil {
			return nil, err
		}
		return configmap.Files(s.ConfigMap.Name, cm, s.ConfigMap.Items, mode, set(s.ConfigMap.Optional))
	case s.Secret != nil:
		sec, err := from.Secret(ctx, pod.Namespace, s.Secret.Name)
		if err != nil {
			return nil, err
		}
		return secret.Files(s.Secret.Name, sec, s.Secret.Items, mode, set(s.Secret.Optional))
	case s.DownwardAPI != nil:
		return downward.Files(pod, s.DownwardAPI.Items, mode, func() (corev1.ResourceList, error) { return from.Allocatable(ctx) })
	case s.ServiceAccountToken != nil:
		tok, err := from.Token(ctx, pod, s.ServiceAccountToken)
		if err != nil {
			return nil, err
		}
		return map[string]atomicdir.File{s.ServiceAccountToken.Path: own.file([]byte(tok), mode)}, nil
	case s.ClusterTrustBundle != nil:
		roots, err := from.Roots(ctx, s.ClusterTrustBundle)
		if err != nil {
			return nil, err
		}
		if roots == nil && !set(s.ClusterTrustBundle.Optional) {
			return nil, fmt.Errorf("no ClusterTrustBundle is there for the file %q", s.ClusterTrustBundle.Path)
		}
		return map[string]atomicdir.File{s.ClusterTrustBundle.Path: own.file(roots, mode)}, nil
	case s.PodCertificate != nil:
		key, chain, err := from.Certificate(ctx, pod, s.PodCertificate)
		if err != nil {
			return nil, err
		}
		out := map[string]atomicdir.File{}
		for path, data := range map[string][]byte{s.PodCertificate.CredentialBundlePath: slices.Concat(key, chain), s.PodCertificate.KeyPath: key, s.PodCertificate.CertificateChainPath: chain} {
			if path != "" {
				out[path] = own.file(data, mode)
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("projected source of an unknown kind")
}

// file is for its reader alone, as soon as one is known.
func (o Owner) file(data []byte, mode int32) atomicdir.File {
	if o.UID != nil || o.Group != nil {
		return atomicdir.File{Data: data, Mode: 0o600, UID: o.UID}
	}
	return atomicdir.File{Data: data, Mode: fs.FileMode(mode).Perm()}
}

func set(b *bool) bool { return b != nil && *b }
