package csi

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

const (
	// lookEvery is how often a volume in use is looked at, for drivers that want to publish again and for sizes that grew.
	lookEvery = time.Minute
	// growing is how soon it is looked at when its claim waits for more room.
	growing = 2 * time.Second
)

// renew brings a volume that is ready up to date. A pod that runs does not suffer from what fails here; it is told.
func (j *job) renew(ctx context.Context) error {
	defer j.schedule()
	if err := j.look(ctx); err != nil {
		return nil // the volume itself is there; its driver will be back
	}
	if j.object != nil && ptr.Deref(j.object.Spec.RequiresRepublish, false) {
		var facts map[string]string
		if j.s.attaches(j.object) {
			j.s.Attachment = AttachmentName(j.s.Handle, j.s.Driver, j.s.Node)
			var err error
			if facts, err = j.attached(ctx); err != nil {
				return err
			}
		}
		if err := j.publish(ctx, facts); err != nil {
			return err
		}
	}
	return j.grow(ctx)
}

// schedule says when the volume is to be looked at again.
func (j *job) schedule() {
	again := j.object != nil && ptr.Deref(j.object.Spec.RequiresRepublish, false)
	wait := lookEvery
	if c := j.r.Claim; c != nil && (j.d == nil || j.d.can[spec.NodeServiceCapability_RPC_EXPAND_VOLUME]) {
		again = true
		if less(c.Status.Capacity, c.Spec.Resources.Requests) {
			wait = growing
		}
	}
	if again {
		j.p.after(j.r.Pod.UID, j.s.Volume, wait)
	}
}

func less(a, b corev1.ResourceList) bool {
	x, y := a[corev1.ResourceStorage], b[corev1.ResourceStorage]
	return x.Cmp(y) < 0
}

// grow lets the filesystem fill a volume that the controller made larger, and says so in the claim.
func (j *job) grow(ctx context.Context) error {
	claim, pv := j.r.Claim, j.r.Persistent
	if claim == nil || len(claim.Status.Capacity) == 0 || !less(claim.Status.Capacity, pv.Spec.Capacity) {
		return nil
	}
	size := pv.Spec.Capacity[corev1.ResourceStorage]
	if j.d.can[spec.NodeServiceCapability_RPC_EXPAND_VOLUME] {
		secrets, err := j.p.secrets(ctx, j.s.expandSecret)
		if err != nil {
			return err
		}
		request := &spec.NodeExpandVolumeRequest{VolumeId: j.s.Handle, VolumePath: j.at.target, CapacityRange: &spec.CapacityRange{RequiredBytes: size.Value()},
			VolumeCapability: j.s.capability(j.d, j.group()), Secrets: secrets}
		if j.d.stages() {
			request.StagingTargetPath = j.at.staging
		}
		if err := call(ctx, "NodeExpandVolume", j.d.node().NodeExpandVolume, request); err != nil {
			return err
		}
	}
	return j.p.grown(ctx, claim, size)
}

// grown writes a claim's new size.
func (p *Plugin) grown(ctx context.Context, claim *corev1.PersistentVolumeClaim, size resource.Quantity) error {
	conditions := slices.DeleteFunc(slices.Clone(claim.Status.Conditions), func(c corev1.PersistentVolumeClaimCondition) bool {
		return slices.Contains([]corev1.PersistentVolumeClaimConditionType{corev1.PersistentVolumeClaimResizing, corev1.PersistentVolumeClaimFileSystemResizePending,
			corev1.PersistentVolumeClaimControllerResizeError, corev1.PersistentVolumeClaimNodeResizeError}, c.Type)
	})
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": claim.UID, "resourceVersion": claim.ResourceVersion},
		"status": map[string]any{"capacity": corev1.ResourceList{corev1.ResourceStorage: size}, "conditions": conditions,
			"allocatedResources": corev1.ResourceList{corev1.ResourceStorage: size}, "allocatedResourceStatuses": nil},
	})
	if err != nil {
		return err
	}
	now, err := p.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("write the new size of claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	now.DeepCopyInto(claim)
	return nil
}

// Look asks for another look at every volume of this name that is in use, now, and names the pods.
func (p *Plugin) Look(volume string) []types.UID {
	p.mu.Lock()
	defer p.mu.Unlock()
	var pods []types.UID
	for pod, volumes := range p.due {
		if _, has := volumes[volume]; has {
			volumes[volume] = time.Now()
			pods = append(pods, pod)
		}
	}
	return pods
}
