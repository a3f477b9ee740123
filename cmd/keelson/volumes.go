package main

import (
	"context"
	"log/slog"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/kubelet/act"
	"keelson.dev/keelson/volume"
)

// newVolumes reads what volumes are made of under the node's identity: it gets only what this node's pods refer to.
func newVolumes(o *options, client kubernetes.Interface, log *slog.Logger) *volume.Manager {
	return volume.New(volume.Config{Root: o.place.KubeletRoot, Log: log.With("part", "volume")}, volume.Deps{
		GetConfigMap: func(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
			return client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		GetSecret: func(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
			return client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		Token: func(ctx context.Context, namespace, account string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
			return client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, r, metav1.CreateOptions{})
		},
	})
}

// mounts shows a volume.Manager as the kubelet wants it.
type mounts struct{ *volume.Manager }

func (m mounts) Mount(ctx context.Context, pod *corev1.Pod) (map[string]act.Mounted, error) {
	have, err := m.Manager.Mount(ctx, pod)
	out := make(map[string]act.Mounted, len(have))
	for name, v := range have {
		out[name] = act.Mounted{HostPath: v.HostPath, ReadOnly: v.ReadOnly, Block: v.Block}
	}
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Image != nil {
			out[v.Name] = act.Mounted{Image: v.Image.Reference, ReadOnly: true}
		}
	}
	return out, err
}
