package volume

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Plugin serves one kind of volume. Implementations are safe for concurrent use by different pods.
type Plugin interface {
	// Name is the folder of its volumes: "kubernetes.io~csi".
	Name() string
	// Serves tells whether the volume is of its kind.
	Serves(v *corev1.Volume) bool
	// Mount makes the volume ready, or brings it up to date if it is there. Idempotent.
	Mount(ctx context.Context, r Request) (Mounted, error)
	// Unmount undoes Mount at dir, which may be half done or not at all; the Manager deletes what is left of dir afterwards.
	Unmount(ctx context.Context, pod types.UID, name, dir string) error
}

// PersistentPlugin serves volumes that claims are bound to.
type PersistentPlugin interface {
	Plugin
	// ServesPersistent tells whether a bound volume is of its kind.
	ServesPersistent(pv *corev1.PersistentVolume) bool
}

// Optioned is a PersistentPlugin that heeds a volume's spec.mountOptions. Others refuse volumes that have any.
type Optioned interface {
	PersistentPlugin
	MountsWithOptions()
}

// Timed is a Plugin whose volumes want to be looked at again while they are in use: Refresh mounts them once more.
type Timed interface {
	Plugin
	// RefreshAt is when the pod's first volume wants it; the zero time for never.
	RefreshAt(pod types.UID) time.Time
}

// Request is one volume of one pod.
type Request struct {
	Pod    *corev1.Pod
	Volume *corev1.Volume
	Dir    string // where the volume belongs; its parent exists

	// Of a claim: the claim, what it is bound to, and whether the pod's use or the modes allow no writing.
	Claim      *corev1.PersistentVolumeClaim
	Persistent *corev1.PersistentVolume
	ReadOnly   bool
}

// Mounted is a volume that is ready.
type Mounted struct {
	HostPath string // what to bind into containers; "" for an image volume, which the runtime mounts itself
	ReadOnly bool   // containers must not write, whatever their mounts say
	Live     bool   // Refresh brings it up to date
	Block    bool   // HostPath is a block device
	Plugin   string
}
