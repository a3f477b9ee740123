package csi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/volume"
	"keelson.dev/keelson/volume/mount"
)

const (
	// attachWait is how long one Mount waits for a volume to be attached; then the pod hears why, and Mount is called again.
	attachWait              = 2 * time.Minute
	firstAttach, lastAttach = 50 * time.Millisecond, 2 * time.Second

	tokensKey = "csi.storage.k8s.io/serviceAccount.tokens"
)

// job is one volume of one pod on its way to be ready.
type job struct {
	p      *Plugin
	r      volume.Request
	s      source
	at     paths
	object *storagev1.CSIDriver // nil if there is none
	d      *Driver
}

// look reads the driver's object and finds its connection.
func (j *job) look(ctx context.Context) error {
	object, err := j.p.client.StorageV1().CSIDrivers().Get(ctx, j.s.Driver, metav1.GetOptions{})
	switch {
	case err == nil:
		j.object = object
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read CSIDriver %s: %w", j.s.Driver, err)
	}
	if err := j.s.lives(j.object); err != nil {
		return err
	}
	j.d, err = j.p.driver(j.s.Driver)
	return err
}

// setUp does every step, also those that a crash had let happen before.
func (j *job) setUp(ctx context.Context) error {
	if err := j.look(ctx); err != nil {
		return err
	}
	var facts map[string]string
	if j.s.attaches(j.object) {
		j.s.Attachment = AttachmentName(j.s.Handle, j.s.Driver, j.s.Node)
		var err error
		if facts, err = j.attached(ctx); err != nil {
			return err
		}
	}
	// The record comes before the first call, so that whatever a driver did is found again.
	if err := j.s.write(j.r.Dir); err != nil {
		return err
	}
	j.p.put(j.r.Dir, j.s.record)
	for _, path := range []string{j.at.target, j.at.staging} {
		if err := clear(path); err != nil {
			return err
		}
	}
	if err := j.stage(ctx, facts); err != nil {
		return err
	}
	if err := j.publish(ctx, facts); err != nil {
		return err
	}
	if j.s.owned(j.object, j.d) {
		r := j.r
		r.ReadOnly = j.s.readOnly
		if err := volume.SetGroup(r, j.at.target, false); err != nil {
			return fmt.Errorf("give the volume to the pod's group: %w", err)
		}
	}
	if err := j.grow(ctx); err != nil {
		return err
	}
	j.s.Ready = true
	if err := j.s.write(j.r.Dir); err != nil {
		return err
	}
	j.schedule()
	return nil
}

// clear takes off a filesystem whose server is dead, a FUSE program's above all: nothing can be mounted over it.
func clear(path string) error {
	_, err := os.Stat(path)
	if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, errNotDir) {
		return nil
	}
	return mount.Unmount(path)
}

// attached waits until the volume is attached and returns what the attacher says of it. A node may not watch attachments.
func (j *job) attached(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, attachWait)
	defer cancel()
	name, why := j.s.Attachment, ""
	for delay := firstAttach; ; delay = min(2*delay, lastAttach) {
		a, err := j.p.client.StorageV1().VolumeAttachments().Get(ctx, name, metav1.GetOptions{})
		switch {
		case err != nil && ctx.Err() != nil:
		case err != nil:
			why = err.Error() // not made yet, which a node sees as forbidden
		case a.DeletionTimestamp != nil:
			why = "it is being detached"
		case a.Status.Attached:
			return a.Status.AttachmentMetadata, nil
		case a.Status.AttachError != nil:
			why = a.Status.AttachError.Message
		default:
			why = "not attached yet"
		}
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("the volume is not attached to this node (VolumeAttachment %s): %s", name, why)
		case <-timer.C:
		}
	}
}

func (j *job) stage(ctx context.Context, facts map[string]string) error {
	if j.s.Lifecycle == ephemeral || !j.d.stages() {
		return nil
	}
	secrets, err := j.p.secrets(ctx, j.s.stageSecret)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(j.at.staging, 0o750); err != nil {
		return err
	}
	if j.at.stage != j.at.staging {
		raw, err := json.Marshal(map[string]string{"driverName": j.s.Driver, "volumeHandle": j.s.Handle})
		if err != nil {
			return err
		}
		if err := replace(filepath.Join(j.at.stage, recordFile), raw); err != nil {
			return err
		}
	}
	return call(ctx, "NodeStageVolume", j.d.node().NodeStageVolume, &spec.NodeStageVolumeRequest{
		VolumeId: j.s.Handle, PublishContext: facts, StagingTargetPath: j.at.staging, VolumeCapability: j.s.capability(j.d, j.group()),
		Secrets: secrets, VolumeContext: j.s.attributes})
}

func (j *job) publish(ctx context.Context, facts map[string]string) error {
	secrets, err := j.p.secrets(ctx, j.s.publishSecret)
	if err != nil {
		return err
	}
	attributes := j.s.podInfo(j.object, j.r.Pod)
	tokens, err := j.tokens(ctx)
	switch {
	case err != nil:
		return err
	case tokens == "":
	case ptr.Deref(j.object.Spec.ServiceAccountTokenInSecrets, false):
		if secrets == nil {
			secrets = map[string]string{}
		}
		secrets[tokensKey] = tokens
	default:
		attributes[tokensKey] = tokens
	}
	request := &spec.NodePublishVolumeRequest{VolumeId: j.s.Handle, PublishContext: facts, TargetPath: j.at.target,
		VolumeCapability: j.s.capability(j.d, j.group()), Readonly: j.s.readOnly, Secrets: secrets, VolumeContext: attributes}
	if j.s.Lifecycle == persistent && j.d.stages() {
		request.StagingTargetPath = j.at.staging
	}
	if err := os.MkdirAll(filepath.Dir(j.at.target), 0o750); err != nil {
		return err
	}
	return call(ctx, "NodePublishVolume", j.d.node().NodePublishVolume, request)
}

func (j *job) group() *int64 {
	if j.r.Pod.Spec.SecurityContext == nil {
		return nil
	}
	return j.r.Pod.Spec.SecurityContext.FSGroup
}

// tokens are those that the driver asked for, as upstream's JSON; "" for none.
func (j *job) tokens(ctx context.Context) (string, error) {
	if j.object == nil || len(j.object.Spec.TokenRequests) == 0 {
		return "", nil
	}
	type token struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expirationTimestamp"`
	}
	out := map[string]token{}
	for _, t := range j.object.Spec.TokenRequests {
		value, expires, err := j.p.deps.Token(ctx, j.r.Pod, t.Audience, t.ExpirationSeconds)
		if err != nil {
			return "", err
		}
		out[t.Audience] = token{value, expires}
	}
	raw, err := json.Marshal(out)
	return string(raw), err
}

func (p *Plugin) secrets(ctx context.Context, ref *corev1.SecretReference) (map[string]string, error) {
	if ref == nil {
		return nil, nil
	}
	s, err := p.client.CoreV1().Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("the volume's secret %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	out := map[string]string{}
	for k, v := range s.Data {
		out[k] = string(v)
	}
	return out, nil
}

// call makes one call with a limit. The error is the driver's own words.
func call[Q, A, O any](ctx context.Context, name string, f func(context.Context, Q, ...O) (A, error), request Q) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	_, err := f(ctx, request)
	return told(name, err)
}

func told(name string, err error) error {
	if err == nil {
		return nil
	}
	s, _ := status.FromError(err)
	return &callError{name: name, status: s}
}

// callError is a driver's refusal or silence.
type callError struct {
	name   string
	status *status.Status
}

func (e *callError) Error() string {
	return fmt.Sprintf("%s: rpc error: code = %s desc = %s", e.name, e.status.Code(), e.status.Message())
}

// takeDown undoes setUp, the record last.
func (p *Plugin) takeDown(ctx context.Context, rec record, pod string, dir string) error {
	d, err := p.driver(rec.Driver)
	if err != nil {
		return err
	}
	at := p.paths(rec, pod, dir)
	if err := call(ctx, "NodeUnpublishVolume", d.node().NodeUnpublishVolume,
		&spec.NodeUnpublishVolumeRequest{VolumeId: rec.Handle, TargetPath: at.target}); err != nil {
		return err
	}
	// Not what is in it: a driver that says it is unpublished and left files there is not believed.
	if err := remove(at.target); err != nil {
		return err
	}
	if rec.Block {
		_ = os.Remove(filepath.Dir(at.target)) // others may have theirs there
	}
	last, err := p.lastUser(rec, dir)
	if err != nil {
		return err
	}
	if last && rec.Lifecycle == persistent {
		if err := unstage(ctx, d, rec, at); err != nil {
			return err
		}
	}
	if err := remove(filepath.Join(dir, recordFile)); err != nil {
		return err
	}
	p.put(dir, record{})
	return nil
}

func unstage(ctx context.Context, d *Driver, rec record, at paths) error {
	if _, err := os.Lstat(at.stage); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if d.stages() {
		if err := call(ctx, "NodeUnstageVolume", d.node().NodeUnstageVolume,
			&spec.NodeUnstageVolumeRequest{VolumeId: rec.Handle, StagingTargetPath: at.staging}); err != nil {
			return err
		}
	}
	for _, path := range []string{at.staging, filepath.Join(at.stage, recordFile), at.stage} {
		if err := remove(path); err != nil {
			return err
		}
	}
	return nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errNotDir) {
		return err
	}
	return nil
}
