package projected

import (
	"context"
	"fmt"
	"io/fs"
	"maps"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/volume/atomicdir"
	"keelson.dev/keelson/volume/configmap"
	"keelson.dev/keelson/volume/downward"
	"keelson.dev/keelson/volume/secret"
)

// Sources answers what the sources name. A nil object with a nil error means that it does not exist.
type Sources interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	Token(ctx context.Context, pod *corev1.Pod, p *corev1.ServiceAccountTokenProjection) (string, error)
	Allocatable() corev1.ResourceList
}

// Owner is who must be able to read a token: a user that all containers run as, or a group of the pod.
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
		return downward.Files(pod, s.DownwardAPI.Items, mode, from.Allocatable())
	case s.ServiceAccountToken != nil:
		tok, err := from.Token(ctx, pod, s.ServiceAccountToken)
		if err != nil {
			return nil, err
		}
		f := atomicdir.File{Data: []byte(tok), Mode: fs.FileMode(mode).Perm()}
		if own.UID != nil || own.Group != nil { // a token is for its reader alone, as soon as one is known
			f.Mode, f.UID = 0o600, own.UID
		}
		return map[string]atomicdir.File{s.ServiceAccountToken.Path: f}, nil
	case s.ClusterTrustBundle != nil:
		if set(s.ClusterTrustBundle.Optional) {
			return nil, nil
		}
		return nil, fmt.Errorf("projected source clusterTrustBundle is not supported on this node")
	}
	return nil, fmt.Errorf("projected source of an unknown kind")
}

func set(b *bool) bool { return b != nil && *b }
