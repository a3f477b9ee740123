package csi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/provision"
)

const (
	// capacityEvery is how often a driver is asked although nothing happened: upstream's.
	capacityEvery     = time.Minute
	capacityNamespace = "kube-system"

	driverLabel, managerLabel = "csi.storage.k8s.io/drivername", "csi.storage.k8s.io/managed-by"
	manager                   = "keelson"
)

// capacity publishes what drivers have left, as CSIStorageCapacities, for the scheduler.
type capacity struct {
	*base
	published cache.SharedIndexInformer
	every     time.Duration
}

// NewCapacity returns the controller that keeps a CSIStorageCapacity for each class whose claims wait for a pod, in each part of the cluster that its
// driver tells apart, of drivers whose object asks for it (spec.storageCapacity). The objects are owned by the CSIDriver. Its keys are drivers' names.
func NewCapacity(d controller.Deps, drivers Drivers) (*controller.Loop, error) {
	return publishes(d, drivers, capacityEvery)
}

func publishes(d controller.Deps, drivers Drivers, every time.Duration) (*controller.Loop, error) {
	c := &capacity{newBase(d, drivers), d.Informers.Storage().V1().CSIStorageCapacities().Informer(), every}
	loop := controller.NewLoop("csi-capacity", d.Log, 2, c.reconcile)
	loop.Needs(c.nodes)
	drivers.Watch(loop.Add)
	return loop, errors.Join(
		controller.Watch(loop, c.objects, func(o, _ *storagev1.CSIDriver) []string { return []string{o.Name} }),
		controller.Watch(loop, c.classes, func(o, _ *storagev1.StorageClass) []string { return []string{o.Provisioner} }),
		controller.Watch(loop, c.csiNodes, func(n, old *storagev1.CSINode) []string {
			var out []string
			for _, n := range []*storagev1.CSINode{n, old} {
				for i := 0; n != nil && i < len(n.Spec.Drivers); i++ {
					out = append(out, n.Spec.Drivers[i].Name)
				}
			}
			return out
		}),
		controller.Watch(loop, c.published, func(p, old *storagev1.CSIStorageCapacity) []string {
			if old != nil || p.Labels[managerLabel] != manager {
				return nil
			}
			return []string{p.Labels[driverLabel]}
		}),
		// A volume that came, grew or went, and one for which there was no room after all, change what is left.
		controller.Watch(loop, c.volumes, func(pv, old *corev1.PersistentVolume) []string {
			if pv.Spec.CSI == nil || old != nil && equality.Semantic.DeepEqual(old.Spec.Capacity, pv.Spec.Capacity) {
				return nil
			}
			return []string{pv.Spec.CSI.Driver}
		}),
		controller.Watch(loop, c.claims, func(claim, old *corev1.PersistentVolumeClaim) []string {
			class := controller.Get[storagev1.StorageClass](c.classes, provision.ClassOf(claim))
			if class == nil || old == nil || old.Annotations[provision.SelectedNode] == "" || claim.Annotations[provision.SelectedNode] != "" {
				return nil
			}
			return []string{class.Provisioner}
		}))
}

func (c *capacity) reconcile(ctx context.Context, driver string) (time.Duration, error) {
	o := controller.Get[storagev1.CSIDriver](c.objects, driver)
	if o == nil {
		return 0, nil // what it owned goes with it
	}
	s, err := c.service(ctx, driver)
	if err != nil || s == nil {
		return 0, err
	}
	var errs []error
	want := map[string]bool{}
	if ptr.Deref(o.Spec.StorageCapacity, false) && s.can[spec.ControllerServiceCapability_RPC_GET_CAPACITY] {
		for _, class := range each[storagev1.StorageClass](c.classes) {
			if class.Provisioner != driver || ptr.Deref(class.VolumeBindingMode, storagev1.VolumeBindingImmediate) != storagev1.VolumeBindingWaitForFirstConsumer {
				continue
			}
			for _, segment := range c.segments(driver) {
				name := capacityName(driver, class.Name, segment)
				want[name] = true
				errs = append(errs, c.publish(ctx, s, o, class, segment, name))
			}
		}
	}
	for _, p := range each[storagev1.CSIStorageCapacity](c.published) {
		if p.Labels[driverLabel] != driver || p.Labels[managerLabel] != manager || want[p.Name] {
			continue
		}
		err := c.Client.StorageV1().CSIStorageCapacities(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
		if !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	if len(want) == 0 {
		return 0, errors.Join(errs...)
	}
	return c.every, errors.Join(errs...)
}

// segments are the parts of the cluster that the driver tells apart: one that is everywhere if it tells none.
func (c *capacity) segments(driver string) []map[string]string {
	var out []map[string]string
	for _, n := range each[corev1.Node](c.nodes) {
		d := c.onNode(n.Name, driver)
		if d == nil {
			continue
		}
		segment := map[string]string{}
		for _, k := range d.TopologyKeys {
			if v, has := n.Labels[k]; has {
				segment[k] = v
			}
		}
		if len(segment) == len(d.TopologyKeys) && !slices.ContainsFunc(out, func(s map[string]string) bool { return maps.Equal(s, segment) }) {
			out = append(out, segment)
		}
	}
	return out
}

// capacityName is made of what cannot change of the object, so that two that act at once make one.
func capacityName(driver, class string, segment map[string]string) string {
	words := []string{driver, class}
	for _, k := range slices.Sorted(maps.Keys(segment)) {
		words = append(words, k, segment[k])
	}
	sum := sha256.Sum256([]byte(strings.Join(words, "\x00")))
	return fmt.Sprintf("csisc-%x", sum[:10])
}

// publish asks the driver and writes its answer down. Without one the object stays as it was.
func (c *capacity) publish(ctx context.Context, s *service, o *storagev1.CSIDriver, class *storagev1.StorageClass, segment map[string]string, name string) error {
	own := map[string]string{}
	for k, v := range class.Parameters {
		if !strings.HasPrefix(k, prefix) {
			own[k] = v
		}
	}
	request := &spec.GetCapacityRequest{Parameters: own}
	if len(segment) > 0 {
		request.AccessibleTopology = &spec.Topology{Segments: segment}
	}
	limited, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	answer, err := s.GetCapacity(limited, request)
	if err != nil {
		return fmt.Errorf("CSI driver %s: GetCapacity for class %s: %w", o.Name, class.Name, err)
	}
	next := &storagev1.CSIStorageCapacity{
		ObjectMeta: metav1.ObjectMeta{Namespace: capacityNamespace, Name: name, Labels: map[string]string{driverLabel: o.Name, managerLabel: manager},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "storage.k8s.io/v1", Kind: "CSIDriver", Name: o.Name, UID: o.UID}}},
		NodeTopology: &metav1.LabelSelector{MatchLabels: segment}, StorageClassName: class.Name,
		Capacity: resource.NewQuantity(answer.AvailableCapacity, resource.BinarySI),
	}
	if most := answer.GetMaximumVolumeSize(); most != nil {
		next.MaximumVolumeSize = resource.NewQuantity(most.Value, resource.BinarySI)
	}
	objects := c.Client.StorageV1().CSIStorageCapacities(capacityNamespace)
	have := controller.Get[storagev1.CSIStorageCapacity](c.published, capacityNamespace+"/"+name)
	if have == nil {
		if _, err := objects.Create(ctx, next, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		return nil // of one that is there already the informer will tell
	}
	if equality.Semantic.DeepEqual(have.Capacity, next.Capacity) && equality.Semantic.DeepEqual(have.MaximumVolumeSize, next.MaximumVolumeSize) &&
		equality.Semantic.DeepEqual(have.OwnerReferences, next.OwnerReferences) {
		return nil
	}
	next.ResourceVersion = have.ResourceVersion
	_, err = objects.Update(ctx, next, metav1.UpdateOptions{})
	return err
}
