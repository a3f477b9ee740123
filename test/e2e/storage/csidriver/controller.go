package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// room is what the driver says it has left.
const room = 1 << 30

// topologyKey is the label by which the driver's volumes are bound to their node.
func (d *driver) topologyKey() string { return "topology." + d.name + "/node" }

func (d *driver) topology() *spec.Topology {
	return &spec.Topology{Segments: map[string]string{d.topologyKey(): d.node}}
}

func (d *driver) GetPluginInfo(context.Context, *spec.GetPluginInfoRequest) (*spec.GetPluginInfoResponse, error) {
	return &spec.GetPluginInfoResponse{Name: d.name, VendorVersion: "1"}, nil
}

func (d *driver) GetPluginCapabilities(context.Context, *spec.GetPluginCapabilitiesRequest) (*spec.GetPluginCapabilitiesResponse, error) {
	out := &spec.GetPluginCapabilitiesResponse{}
	for _, c := range []spec.PluginCapability_Service_Type{spec.PluginCapability_Service_CONTROLLER_SERVICE, spec.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS} {
		out.Capabilities = append(out.Capabilities, &spec.PluginCapability{Type: &spec.PluginCapability_Service_{Service: &spec.PluginCapability_Service{Type: c}}})
	}
	return out, nil
}

func (d *driver) Probe(context.Context, *spec.ProbeRequest) (*spec.ProbeResponse, error) {
	return &spec.ProbeResponse{}, nil
}

func (d *driver) ControllerGetCapabilities(context.Context, *spec.ControllerGetCapabilitiesRequest) (*spec.ControllerGetCapabilitiesResponse, error) {
	out := &spec.ControllerGetCapabilitiesResponse{}
	for _, c := range []spec.ControllerServiceCapability_RPC_Type{spec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		spec.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME, spec.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		spec.ControllerServiceCapability_RPC_GET_CAPACITY, spec.ControllerServiceCapability_RPC_CLONE_VOLUME} {
		out.Capabilities = append(out.Capabilities, &spec.ControllerServiceCapability{Type: &spec.ControllerServiceCapability_Rpc{Rpc: &spec.ControllerServiceCapability_RPC{Type: c}}})
	}
	return out, nil
}

func (d *driver) CreateVolume(_ context.Context, r *spec.CreateVolumeRequest) (*spec.CreateVolumeResponse, error) {
	id, size := "vol-"+r.Name, r.GetCapacityRange().GetRequiredBytes()
	if size > room {
		return nil, status.Error(codes.OutOfRange, "there is not so much room")
	}
	block := false
	for _, c := range r.VolumeCapabilities {
		block = block || c.GetBlock() != nil
	}
	if err := d.create(id, volume{Name: r.Name, Bytes: size, Grown: size, Block: block}); err != nil {
		return nil, err
	}
	if from := r.GetVolumeContentSource().GetVolume().GetVolumeId(); from != "" {
		if err := os.CopyFS(d.dir(id), os.DirFS(d.dir(from))); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	return &spec.CreateVolumeResponse{Volume: &spec.Volume{VolumeId: id, CapacityBytes: size, VolumeContext: map[string]string{"made-for": r.Name},
		ContentSource: r.VolumeContentSource, AccessibleTopology: []*spec.Topology{d.topology()}}}, nil
}

// create makes a volume's folder or image, unless it is there.
func (d *driver) create(id string, v volume) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v.Block {
		f, err := os.OpenFile(d.dir(id), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Truncate(v.Bytes); err != nil {
			return err
		}
	} else if err := os.MkdirAll(d.dir(id), 0o755); err != nil {
		return err
	}
	if _, err := os.Stat(d.dir(id) + ".json"); err == nil {
		return nil
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(d.dir(id)+".json", raw, 0o644)
}

func (d *driver) DeleteVolume(_ context.Context, r *spec.DeleteVolumeRequest) (*spec.DeleteVolumeResponse, error) {
	if v, err := d.known(r.VolumeId); err == nil && v.On != "" {
		return nil, status.Error(codes.FailedPrecondition, "the volume is attached to "+v.On)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return &spec.DeleteVolumeResponse{}, errors.Join(os.RemoveAll(d.dir(r.VolumeId)), os.RemoveAll(d.dir(r.VolumeId)+".json"))
}

func (d *driver) ControllerPublishVolume(_ context.Context, r *spec.ControllerPublishVolumeRequest) (*spec.ControllerPublishVolumeResponse, error) {
	if r.NodeId != d.node {
		return nil, status.Error(codes.NotFound, "no such node")
	}
	_, err := d.change(r.VolumeId, func(v *volume) error { v.On = r.NodeId; return nil })
	return &spec.ControllerPublishVolumeResponse{PublishContext: map[string]string{"attached-to": r.NodeId}}, err
}

func (d *driver) ControllerUnpublishVolume(_ context.Context, r *spec.ControllerUnpublishVolumeRequest) (*spec.ControllerUnpublishVolumeResponse, error) {
	_, err := d.change(r.VolumeId, func(v *volume) error { v.On = ""; return nil })
	if errors.Is(err, errNone) {
		err = nil
	}
	return &spec.ControllerUnpublishVolumeResponse{}, err
}

func (d *driver) ControllerExpandVolume(_ context.Context, r *spec.ControllerExpandVolumeRequest) (*spec.ControllerExpandVolumeResponse, error) {
	size := r.GetCapacityRange().GetRequiredBytes()
	v, err := d.change(r.VolumeId, func(v *volume) error {
		v.Bytes = max(v.Bytes, size)
		if v.Block {
			return os.Truncate(d.dir(r.VolumeId), v.Bytes)
		}
		return nil
	})
	return &spec.ControllerExpandVolumeResponse{CapacityBytes: v.Bytes, NodeExpansionRequired: true}, err
}

// GetCapacity tells what is in the file "room", if somebody made it.
func (d *driver) GetCapacity(context.Context, *spec.GetCapacityRequest) (*spec.GetCapacityResponse, error) {
	raw, err := os.ReadFile(filepath.Join(d.data, "room"))
	if errors.Is(err, os.ErrNotExist) {
		return &spec.GetCapacityResponse{AvailableCapacity: room}, nil
	}
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	return &spec.GetCapacityResponse{AvailableCapacity: n}, err
}
