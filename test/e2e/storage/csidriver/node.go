package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keelson.dev/keelson/volume/local"
	"keelson.dev/keelson/volume/mount"
)

func (d *driver) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (*spec.NodeGetInfoResponse, error) {
	return &spec.NodeGetInfoResponse{NodeId: d.node, MaxVolumesPerNode: 3, AccessibleTopology: d.topology()}, nil
}

func (d *driver) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	out := &spec.NodeGetCapabilitiesResponse{}
	for _, c := range []spec.NodeServiceCapability_RPC_Type{spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, spec.NodeServiceCapability_RPC_EXPAND_VOLUME,
		spec.NodeServiceCapability_RPC_GET_VOLUME_STATS, spec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER} {
		out.Capabilities = append(out.Capabilities, &spec.NodeServiceCapability{Type: &spec.NodeServiceCapability_Rpc{Rpc: &spec.NodeServiceCapability_RPC{Type: c}}})
	}
	return out, nil
}

// bind mounts source on target, unless something is there.
func bind(source, target string, readOnly bool) error {
	there, err := mount.Is(target)
	if err != nil || there {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if readOnly {
		return unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	return nil
}

func (d *driver) NodeStageVolume(_ context.Context, r *spec.NodeStageVolumeRequest) (*spec.NodeStageVolumeResponse, error) {
	v, err := d.known(r.VolumeId)
	if err != nil {
		return nil, err
	}
	if v.On == "" && r.PublishContext != nil {
		return nil, status.Error(codes.FailedPrecondition, "the volume is not attached")
	}
	if v.Block {
		_, err := local.Attach(d.dir(r.VolumeId))
		return &spec.NodeStageVolumeResponse{}, err
	}
	return &spec.NodeStageVolumeResponse{}, bind(d.dir(r.VolumeId), r.StagingTargetPath, false)
}

func (d *driver) NodeUnstageVolume(_ context.Context, r *spec.NodeUnstageVolumeRequest) (*spec.NodeUnstageVolumeResponse, error) {
	if v, err := d.known(r.VolumeId); err == nil && v.Block {
		return &spec.NodeUnstageVolumeResponse{}, local.Detach(d.dir(r.VolumeId))
	}
	return &spec.NodeUnstageVolumeResponse{}, mount.Unmount(r.StagingTargetPath)
}

func (d *driver) NodePublishVolume(_ context.Context, r *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	source := r.StagingTargetPath
	if r.StagingTargetPath == "" { // a volume that lives with its pod
		source = d.dir(r.VolumeId)
		if err := d.create(r.VolumeId, volume{Name: r.VolumeId}); err != nil {
			return nil, err
		}
		if word := r.VolumeContext["hello"]; word != "" {
			if err := os.WriteFile(filepath.Join(source, "hello"), []byte(word), 0o644); err != nil {
				return nil, err
			}
		}
	}
	if r.GetVolumeCapability().GetBlock() == nil {
		if err := os.MkdirAll(r.TargetPath, 0o755); err != nil {
			return nil, err
		}
		return &spec.NodePublishVolumeResponse{}, bind(source, r.TargetPath, r.Readonly)
	}
	device, err := local.Attach(d.dir(r.VolumeId))
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(r.TargetPath, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	f.Close()
	return &spec.NodePublishVolumeResponse{}, bind(device, r.TargetPath, false)
}

func (d *driver) NodeUnpublishVolume(_ context.Context, r *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	if err := mount.Unmount(r.TargetPath); err != nil {
		return nil, err
	}
	if err := os.Remove(r.TargetPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if filepath.Base(r.VolumeId)[:4] == "csi-" { // made when it was published
		return &spec.NodeUnpublishVolumeResponse{}, errors.Join(os.RemoveAll(d.dir(r.VolumeId)), os.RemoveAll(d.dir(r.VolumeId)+".json"))
	}
	return &spec.NodeUnpublishVolumeResponse{}, nil
}

func (d *driver) NodeExpandVolume(_ context.Context, r *spec.NodeExpandVolumeRequest) (*spec.NodeExpandVolumeResponse, error) {
	v, err := d.change(r.VolumeId, func(v *volume) error { v.Grown = r.GetCapacityRange().GetRequiredBytes(); return nil })
	return &spec.NodeExpandVolumeResponse{CapacityBytes: v.Grown}, err
}

func (d *driver) NodeGetVolumeStats(_ context.Context, r *spec.NodeGetVolumeStatsRequest) (*spec.NodeGetVolumeStatsResponse, error) {
	v, err := d.known(r.VolumeId)
	if err != nil {
		return nil, err
	}
	return &spec.NodeGetVolumeStatsResponse{Usage: []*spec.VolumeUsage{
		{Unit: spec.VolumeUsage_BYTES, Total: v.Bytes, Used: 4096, Available: v.Bytes - 4096},
		{Unit: spec.VolumeUsage_INODES, Total: 100, Used: 7, Available: 93}}}, nil
}
