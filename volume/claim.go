package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/volume/mount"
)

const (
	// bindWait is how long one Mount waits for a claim to be bound: a claim that waits for its first consumer is bound
	// a moment after its pod has a node. Then the pod hears why, and Mount is called again.
	bindWait = 10 * time.Second
	bindLook = 100 * time.Millisecond

	bindCompleted = "pv.kubernetes.io/bind-completed"
)

// bound finds the claim and volume of a pod's volume.
func (m *Manager) bound(ctx context.Context, r *Request) error {
	if m.deps.GetClaim == nil || m.deps.GetVolume == nil {
		return errors.New("this node serves no claims")
	}
	name := r.Pod.Name + "-" + r.Volume.Name
	if c := r.Volume.PersistentVolumeClaim; c != nil {
		name, r.ReadOnly = c.ClaimName, c.ReadOnly
	}
	deadline := time.NewTimer(bindWait)
	defer deadline.Stop()
	for {
		claim, err := m.deps.GetClaim(ctx, r.Pod.Namespace, name)
		if err != nil {
			return fmt.Errorf("claim %q: %w", name, err)
		}
		if why := unusable(r.Pod, r.Volume, claim); why != nil {
			return fmt.Errorf("claim %q: %w", name, why)
		}
		if claim.Spec.VolumeName != "" && claim.Annotations[bindCompleted] != "" && claim.Status.Phase == corev1.ClaimBound {
			r.Claim = claim
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline.C:
			return fmt.Errorf("claim %q is not bound (phase %s)", name, claim.Status.Phase)
		case <-time.After(bindLook): // a claim cannot be watched by a node that may get only its own
		}
	}
	pv, err := m.deps.GetVolume(ctx, r.Claim.Spec.VolumeName)
	if err != nil {
		return fmt.Errorf("volume %q of claim %q: %w", r.Claim.Spec.VolumeName, name, err)
	}
	if ref := pv.Spec.ClaimRef; ref == nil || ref.UID != r.Claim.UID {
		return fmt.Errorf("volume %q is not bound to claim %q", pv.Name, name)
	}
	r.Persistent = pv
	// Only reading was asked of a volume of which nothing but reading was promised.
	r.ReadOnly = r.ReadOnly || !slices.ContainsFunc(pv.Spec.AccessModes, func(a corev1.PersistentVolumeAccessMode) bool { return a != corev1.ReadOnlyMany })
	return nil
}

// unusable says why a pod cannot use a claim, whatever it is bound to.
func unusable(pod *corev1.Pod, v *corev1.Volume, claim *corev1.PersistentVolumeClaim) error {
	if v.Ephemeral != nil && !metav1.IsControlledBy(claim, pod) {
		return fmt.Errorf("it was not created for pod %q (pod is not owner)", pod.Name)
	}
	if claim.DeletionTimestamp != nil && claim.Annotations[bindCompleted] == "" {
		return errors.New("it is being deleted")
	}
	block := wantsBlock(&corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{VolumeMode: claim.Spec.VolumeMode}})
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			mounts := slices.ContainsFunc(list[i].VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name })
			devices := slices.ContainsFunc(list[i].VolumeDevices, func(d corev1.VolumeDevice) bool { return d.Name == v.Name })
			switch {
			case block && mounts:
				return fmt.Errorf("volume %s has volumeMode Block, but is specified in volumeMounts", v.Name)
			case !block && devices:
				return fmt.Errorf("volume %s has volumeMode Filesystem, but is specified in volumeDevices", v.Name)
			}
		}
	}
	return nil
}

func (m *Manager) persistent(pv *corev1.PersistentVolume) Plugin {
	for _, p := range m.plugins {
		if pp, ok := p.(PersistentPlugin); ok && pp.ServesPersistent(pv) {
			return p
		}
	}
	return nil
}

// may says why a bound volume is not mounted: its plugin heeds no options and it has some, or one pod alone may use it (ReadWriteOncePod) and another does.
// The pod's folder of the volume, made here, is what says who does, also after a restart.
func (m *Manager) may(p Plugin, r Request) error {
	pv := r.Persistent
	if pv == nil {
		return nil
	}
	if _, heeds := p.(Optioned); len(pv.Spec.MountOptions) > 0 && !heeds {
		return fmt.Errorf("MountVolume.MountOptionSupport check failed : mount options are not supported for this volume type (%s): PersistentVolume %q has %q",
			strings.TrimPrefix(p.Name(), "kubernetes.io~"), pv.Name, pv.Spec.MountOptions)
	}
	if len(pv.Spec.AccessModes) != 1 || pv.Spec.AccessModes[0] != corev1.ReadWriteOncePod {
		return nil // with more than one it is not known which the pod meant
	}
	m.single.Lock()
	defer m.single.Unlock()
	err := os.Mkdir(r.Dir, 0o750)
	if errors.Is(err, os.ErrExist) {
		return nil // this pod's
	}
	if err != nil {
		return err
	}
	others, err := m.otherUsers(r.Dir)
	if err == nil && others {
		err = errors.New("volume uses the ReadWriteOncePod access mode and is already in use by another pod")
	}
	if err != nil {
		_ = os.Remove(r.Dir)
	}
	return err
}

func wantsBlock(pv *corev1.PersistentVolume) bool {
	return pv != nil && pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode == corev1.PersistentVolumeBlock
}

// SetGroup gives a volume to the pod's fsGroup by its change policy. again says that the pod may have it already, as after a restart of
// the daemon: then only what was cut short is done.
func SetGroup(r Request, dir string, again bool) error {
	g := fsGroup(r.Pod)
	if g == nil || r.ReadOnly {
		return nil
	}
	if p := r.Pod.Spec.SecurityContext.FSGroupChangePolicy; again || p != nil && *p == corev1.FSGroupChangeOnRootMismatch {
		if owned, err := mount.Owned(dir, *g); owned || err != nil {
			return err
		}
	}
	return mount.Owner(dir, *g, false)
}

// otherUsers tells whether another pod's volume folder of the same plugin and name exists.
func (m *Manager) otherUsers(dir string) (bool, error) {
	plugin, name := filepath.Base(filepath.Dir(dir)), filepath.Base(dir)
	paths, err := filepath.Glob(filepath.Join(escape(m.cfg.Root), "pods", "*", "volumes", escape(plugin), escape(name)))
	return slices.ContainsFunc(paths, func(p string) bool { return p != dir }), err
}

// device is the file of a block volume's folder that holds the path of what backs its loop device.
const device = "backing"
