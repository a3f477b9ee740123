package csi

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller"
)

const (
	// ExternalAnnotation on a CSIDriver, with the value "external", leaves the driver to its own sidecars.
	ExternalAnnotation = "keelson.dev/controller"

	callLimit = 2 * time.Minute
	askLimit  = 15 * time.Second
)

// Drivers are the drivers that are registered on the node beside this server.
type Drivers interface {
	// Controller is the connection to a driver's controller service; nil if there is none.
	Controller(driver string) grpc.ClientConnInterface
	// Watch calls f, which is quick, with the name of each driver that is there, comes or goes.
	Watch(f func(driver string))
	// Grown tells the node that a volume has become larger.
	Grown(volume string)
}

// base is what the controllers here share.
type base struct {
	controller.Deps
	drivers                                 Drivers
	claims, volumes, pods, nodes            cache.SharedIndexInformer
	classes, objects, csiNodes, attachments cache.SharedIndexInformer
}

func newBase(d controller.Deps, drivers Drivers) *base {
	core, storage := d.Informers.Core().V1(), d.Informers.Storage().V1()
	return &base{Deps: d, drivers: drivers, claims: core.PersistentVolumeClaims().Informer(), volumes: core.PersistentVolumes().Informer(),
		pods: core.Pods().Informer(), nodes: core.Nodes().Informer(), classes: storage.StorageClasses().Informer(),
		objects: storage.CSIDrivers().Informer(), csiNodes: storage.CSINodes().Informer(), attachments: storage.VolumeAttachments().Informer()}
}

// service is a driver's controller service with what it can do.
type service struct {
	spec.ControllerClient
	can map[spec.ControllerServiceCapability_RPC_Type]bool
}

// service returns the controller service of a driver that is ours to ask; nil if it is not.
func (b *base) service(ctx context.Context, driver string) (*service, error) {
	if o := controller.Get[storagev1.CSIDriver](b.objects, driver); o != nil && o.Annotations[ExternalAnnotation] == "external" {
		return nil, nil
	}
	conn := b.drivers.Controller(driver)
	if conn == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	s := &service{ControllerClient: spec.NewControllerClient(conn), can: map[spec.ControllerServiceCapability_RPC_Type]bool{}}
	caps, err := s.ControllerGetCapabilities(ctx, &spec.ControllerGetCapabilitiesRequest{})
	if err != nil {
		return nil, fmt.Errorf("CSI driver %s: ControllerGetCapabilities: %w", driver, err)
	}
	for _, c := range caps.GetCapabilities() {
		s.can[c.GetRpc().GetType()] = true
	}
	return s, nil
}

// secret reads what a reference of a volume names; nil for none.
func (b *base) secret(ctx context.Context, ref *corev1.SecretReference) (map[string]string, error) {
	if ref == nil {
		return nil, nil
	}
	s, err := b.Client.CoreV1().Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read secret %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	out := map[string]string{}
	for k, v := range s.Data {
		out[k] = string(v)
	}
	return out, nil
}

// capabilities are the uses that a volume is to serve, one for each access mode.
func capabilities(modes []corev1.PersistentVolumeAccessMode, mode *corev1.PersistentVolumeMode, fsType string, options []string, single bool) []*spec.VolumeCapability {
	var out []*spec.VolumeCapability
	for _, m := range modes {
		c := &spec.VolumeCapability{AccessMode: &spec.VolumeCapability_AccessMode{Mode: words(single)[m]}}
		if ptr.Deref(mode, corev1.PersistentVolumeFilesystem) == corev1.PersistentVolumeBlock {
			c.AccessType = &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}
		} else {
			c.AccessType = &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{FsType: fsType, MountFlags: options}}
		}
		out = append(out, c)
	}
	return out
}

// words are the specification's for access modes; single is for drivers that tell one writer of a node from several.
func words(single bool) map[corev1.PersistentVolumeAccessMode]spec.VolumeCapability_AccessMode_Mode {
	out := map[corev1.PersistentVolumeAccessMode]spec.VolumeCapability_AccessMode_Mode{
		corev1.ReadWriteOnce:    spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
		corev1.ReadWriteOncePod: spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
		corev1.ReadOnlyMany:     spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
		corev1.ReadWriteMany:    spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER,
	}
	if single {
		out[corev1.ReadWriteOnce] = spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
		out[corev1.ReadWriteOncePod] = spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	}
	return out
}

func (s *service) single() bool {
	return s.can[spec.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER]
}

var noName = regexp.MustCompile("[^a-zA-Z0-9-]")

// attacherFinalizer is upstream's name of the finalizer of a driver's attachments.
func attacherFinalizer(driver string) string {
	return "external-attacher/" + noName.ReplaceAllString(driver, "-")
}

// csiVolume is a volume of a driver by its name; nil if it is none.
func (b *base) csiVolume(name string) *corev1.PersistentVolume {
	if pv := controller.Get[corev1.PersistentVolume](b.volumes, name); pv != nil && pv.Spec.CSI != nil {
		return pv
	}
	return nil
}

// onNode is what a node's CSINode says of a driver; nil for nothing.
func (b *base) onNode(node, driver string) *storagev1.CSINodeDriver {
	if n := controller.Get[storagev1.CSINode](b.csiNodes, node); n != nil {
		for i := range n.Spec.Drivers {
			if n.Spec.Drivers[i].Name == driver {
				return &n.Spec.Drivers[i]
			}
		}
	}
	return nil
}

// each lists an informer's objects.
func each[T any](informer cache.SharedIndexInformer) []*T {
	var out []*T
	for _, obj := range informer.GetIndexer().List() {
		if typed, ok := obj.(*T); ok {
			out = append(out, typed)
		}
	}
	return out
}

// bound is where a claim's key and a volume's are told apart.
const claimKey, volumeKey = "claim/", "volume/"

func cut(key string) (claim, volume string) {
	if name, ok := strings.CutPrefix(key, volumeKey); ok {
		return "", name
	}
	return strings.TrimPrefix(key, claimKey), ""
}
