package csi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// staleAfter is how long after a start a driver of an earlier life may take to register again before CSINode forgets it.
const staleAfter = 2 * time.Minute

// Run keeps CSINode: it makes the object and, some time after the start, takes drivers off it that did not come back. It returns when
// that is done or ctx ends.
func (p *Plugin) Run(ctx context.Context) error {
	began := time.Now()
	for delay := 100 * time.Millisecond; ; delay = min(2*delay, 30*time.Second) {
		var err error
		wait := delay
		switch since := time.Since(began); {
		case since >= staleAfter:
			err = p.edit(ctx, func(have []storagev1.CSINodeDriver) []storagev1.CSINodeDriver {
				return slices.DeleteFunc(have, func(d storagev1.CSINodeDriver) bool { return p.Driver(d.Name) == nil })
			})
			if err == nil {
				return nil
			}
		default:
			if err = p.edit(ctx, func(have []storagev1.CSINodeDriver) []storagev1.CSINodeDriver { return have }); err == nil {
				wait = staleAfter - since
			}
		}
		if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
			p.log.Warn("keep CSINode: will try again", "err", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// announce tells the API of a driver: its topology as the node's labels first, so that who sees the driver finds them.
func (p *Plugin) announce(ctx context.Context, d *Driver) error {
	ctx, cancel := context.WithTimeout(ctx, 2*askLimit)
	defer cancel()
	segments := d.info.GetAccessibleTopology().GetSegments()
	if len(segments) > 0 {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": segments}})
		if err != nil {
			return err
		}
		if _, err := p.client.CoreV1().Nodes().Patch(ctx, p.cfg.Node, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("label the node with the driver's topology: %w", err)
		}
	}
	entry := storagev1.CSINodeDriver{Name: d.Name, NodeID: d.info.NodeId, TopologyKeys: slices.Sorted(maps.Keys(segments))}
	if n := d.info.MaxVolumesPerNode; n > 0 {
		count := int32(min(n, 1<<31-1))
		entry.Allocatable = &storagev1.VolumeNodeResources{Count: &count}
	}
	same := func(a, b storagev1.CSINodeDriver) bool {
		a.Allocatable, b.Allocatable = nil, nil
		return equality.Semantic.DeepEqual(a, b)
	}
	without := func(have []storagev1.CSINodeDriver) []storagev1.CSINodeDriver {
		return slices.DeleteFunc(have, func(e storagev1.CSINodeDriver) bool { return e.Name == d.Name && !same(e, entry) })
	}
	// An entry may not change, only go and come again.
	if err := p.edit(ctx, without); err != nil {
		return err
	}
	return p.edit(ctx, func(have []storagev1.CSINodeDriver) []storagev1.CSINodeDriver {
		have = slices.DeleteFunc(have, func(e storagev1.CSINodeDriver) bool { return e.Name == d.Name })
		return append(have, entry)
	})
}

func (p *Plugin) withdraw(ctx context.Context, name string) error {
	return p.edit(ctx, func(have []storagev1.CSINodeDriver) []storagev1.CSINodeDriver {
		return slices.DeleteFunc(have, func(d storagev1.CSINodeDriver) bool { return d.Name == name && p.Driver(name) == nil })
	})
}

// edit changes the drivers of this node's CSINode, which it makes if need be.
func (p *Plugin) edit(ctx context.Context, change func([]storagev1.CSINodeDriver) []storagev1.CSINodeDriver) error {
	nodes := p.client.StorageV1().CSINodes()
	busy := func(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }
	return retry.OnError(retry.DefaultBackoff, busy, func() error {
		have, err := nodes.Get(ctx, p.cfg.Node, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			owner, err := p.client.CoreV1().Nodes().Get(ctx, p.cfg.Node, metav1.GetOptions{})
			if err != nil {
				return err
			}
			have = &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: p.cfg.Node,
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: owner.Name, UID: owner.UID}}}}
			have.Spec.Drivers = append([]storagev1.CSINodeDriver{}, change(nil)...)
			_, err = nodes.Create(ctx, have, metav1.CreateOptions{})
			return err
		}
		if err != nil {
			return err
		}
		next := have.DeepCopy()
		next.Spec.Drivers = append([]storagev1.CSINodeDriver{}, change(next.Spec.Drivers)...)
		if equality.Semantic.DeepEqual(next.Spec, have.Spec) {
			return nil
		}
		_, err = nodes.Update(ctx, next, metav1.UpdateOptions{})
		return err
	})
}
