package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"google.golang.org/grpc"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/controlplane/controller/provision"
	"keelson.dev/keelson/kubelet"
	"keelson.dev/keelson/kubelet/act"
	"keelson.dev/keelson/volume"
	"keelson.dev/keelson/volume/csi"
	"keelson.dev/keelson/volume/mount"
)

// newVolumes reads what volumes are made of under the node's identity: it gets only what this node's pods refer to.
func newVolumes(o *options, client kubernetes.Interface, log *slog.Logger) (*volume.Manager, *csi.Plugin) {
	var m *volume.Manager
	drivers := csi.New(csi.Config{Root: o.place.KubeletRoot, Node: o.node.Name, Log: log.With("part", "csi")}, csi.Deps{Client: client,
		Token: func(ctx context.Context, pod *corev1.Pod, audience string, seconds *int64) (string, time.Time, error) {
			return m.Token(ctx, pod, audience, seconds)
		}})
	m = volume.New(volume.Config{Root: o.place.KubeletRoot, Log: log.With("part", "volume")}, volume.Deps{
		GetConfigMap: func(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
			return client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		GetSecret: func(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
			return client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		GetClaim: func(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
			return client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		GetVolume: func(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
			return client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
		},
		Token: func(ctx context.Context, namespace, account string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
			return client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, r, metav1.CreateOptions{})
		},
		TrustBundles: func(ctx context.Context, name, signer string) ([]certificatesv1.ClusterTrustBundle, error) {
			at := fields.OneTermEqualSelector("metadata.name", name)
			if signer != "" {
				at = fields.OneTermEqualSelector("spec.signerName", signer)
			}
			list, err := client.CertificatesV1().ClusterTrustBundles().List(ctx, metav1.ListOptions{FieldSelector: at.String()})
			if err != nil {
				return nil, err
			}
			return list.Items, nil
		},
		RequestCertificate: func(ctx context.Context, pod *corev1.Pod, spec certificatesv1.PodCertificateRequestSpec) (*certificatesv1.PodCertificateRequest, error) {
			return requestCertificate(ctx, client, o.node.Name, pod, spec)
		},
		GetCertificateRequest: func(ctx context.Context, namespace, name string) (*certificatesv1.PodCertificateRequest, error) {
			return certificateRequest(ctx, client, o.node.Name, namespace, name)
		},
		Allocatable: func(ctx context.Context) (corev1.ResourceList, error) {
			n, err := client.CoreV1().Nodes().Get(ctx, o.node.Name, metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			return n.Status.Allocatable, nil
		},
		Plugins: []volume.Plugin{drivers},
	})
	return m, drivers
}

// requestCertificate asks in the name of a pod of this node; the request goes with the pod.
func requestCertificate(ctx context.Context, client kubernetes.Interface, node string, pod *corev1.Pod, spec certificatesv1.PodCertificateRequestSpec) (*certificatesv1.PodCertificateRequest, error) {
	account, err := client.CoreV1().ServiceAccounts(pod.Namespace).Get(ctx, pod.Spec.ServiceAccountName, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	n, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	spec.PodName, spec.PodUID = pod.Name, pod.UID
	spec.ServiceAccountName, spec.ServiceAccountUID = account.Name, account.UID
	spec.NodeName, spec.NodeUID = types.NodeName(node), n.UID
	r := &certificatesv1.PodCertificateRequest{Spec: spec}
	r.Namespace, r.GenerateName = pod.Namespace, "req-"+pod.Name+"-"
	r.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}
	return client.CertificatesV1().PodCertificateRequests(pod.Namespace).Create(ctx, r, metav1.CreateOptions{})
}

// certificateRequest returns a request of this node. It is listed, not got: a node may get a request only after the authorizer has seen
// whose it is, a moment after it was created.
func certificateRequest(ctx context.Context, client kubernetes.Interface, node, namespace, name string) (*certificatesv1.PodCertificateRequest, error) {
	one := fields.AndSelectors(fields.OneTermEqualSelector("metadata.name", name), fields.OneTermEqualSelector("spec.nodeName", node))
	list, err := client.CertificatesV1().PodCertificateRequests(namespace).List(ctx, metav1.ListOptions{FieldSelector: one.String()})
	switch {
	case err != nil:
		return nil, err
	case len(list.Items) == 0:
		return nil, apierrors.NewNotFound(certificatesv1.Resource("podcertificaterequests"), name)
	}
	return &list.Items[0], nil
}

// shareVolumes makes the kubelet's folder a shared mount, unless it is on one: a CSI driver mounts in its own pod what other pods are to
// see. With mounts below it the folder is left as it is: they would be there twice.
func shareVolumes(o *options, log *slog.Logger) error {
	root := o.place.KubeletRoot
	if err := os.MkdirAll(root, 0o750); err != nil {
		return fmt.Errorf("--kubelet-dir: %w", err)
	}
	err := mount.Share(root)
	if errors.Is(err, mount.ErrMounted) {
		log.Warn("the kubelet's folder is not on a shared mount and has mounts below it: what CSI drivers mount will not reach other pods", "dir", root)
		return nil
	}
	return err
}

// ensureClass makes the default storage class once: a class that an administrator changed stays as it is.
func ensureClass(ctx context.Context, client kubernetes.Interface) error {
	_, err := client.StorageV1().StorageClasses().Create(ctx, provision.Class(), metav1.CreateOptions{})
	if err == nil || apierrors.IsAlreadyExists(err) {
		return nil
	}
	return fmt.Errorf("make the default storage class: %w", err)
}

// csiDrivers shows the node's drivers to the controllers beside it.
type csiDrivers struct {
	*csi.Plugin
	kubelet *kubelet.Kubelet
}

func (d csiDrivers) Controller(driver string) grpc.ClientConnInterface {
	if known := d.Driver(driver); known != nil && known.Controller {
		return known.Conn
	}
	return nil
}

func (d csiDrivers) Grown(volume string) { d.kubelet.Recheck(d.Look(volume)...) }

// mounts shows a volume.Manager as the kubelet wants it.
type mounts struct{ *volume.Manager }

func (m mounts) Mount(ctx context.Context, pod *corev1.Pod) (map[string]act.Mounted, error) {
	have, err := m.Manager.Mount(ctx, pod)
	out := make(map[string]act.Mounted, len(have))
	for name, v := range have {
		out[name] = act.Mounted{HostPath: v.HostPath, ReadOnly: v.ReadOnly, Block: v.Block, Host: v.Plugin == "kubernetes.io~host-path"}
	}
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Image != nil {
			out[v.Name] = act.Mounted{Image: v.Image.Reference, ReadOnly: true}
		}
	}
	return out, err
}
