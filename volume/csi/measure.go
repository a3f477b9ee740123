package csi

import (
	"context"
	"fmt"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"keelson.dev/keelson/volume"
)

// Measure implements volume.Measured: the driver is asked, if it is one that knows.
func (p *Plugin) Measure(ctx context.Context, r volume.Request, m volume.Mounted) (volume.Usage, error) {
	s := sourceOf(r, p.cfg.Node)
	d, err := p.driver(s.Driver)
	if err != nil {
		return volume.Usage{}, err
	}
	if !d.can[spec.NodeServiceCapability_RPC_GET_VOLUME_STATS] {
		return volume.Usage{}, volume.ErrUnmeasured
	}
	request := &spec.NodeGetVolumeStatsRequest{VolumeId: s.Handle, VolumePath: m.HostPath}
	if s.Lifecycle == persistent && d.stages() {
		request.StagingTargetPath = p.paths(s.record, string(r.Pod.UID), r.Dir).staging
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	answer, err := d.node().NodeGetVolumeStats(ctx, request)
	if err != nil {
		return volume.Usage{}, told("NodeGetVolumeStats", err)
	}
	return usage(answer.GetUsage())
}

// usage reads a driver's figures: at most one of each unit. It is pure.
func usage(figures []*spec.VolumeUsage) (out volume.Usage, err error) {
	for _, f := range figures {
		if f.Total < 0 || f.Available < 0 || f.Used < 0 {
			return out, fmt.Errorf("NodeGetVolumeStats: the driver tells %d used and %d available of %d", f.Used, f.Available, f.Total)
		}
		total, available, used := uint64(f.Total), uint64(f.Available), uint64(f.Used)
		switch f.Unit {
		case spec.VolumeUsage_BYTES:
			out.Capacity, out.Available, out.Used = &total, &available, &used
		case spec.VolumeUsage_INODES:
			out.Inodes, out.InodesFree, out.InodesUsed = &total, &available, &used
		default:
			return out, fmt.Errorf("NodeGetVolumeStats: the driver counts in the unit %s", f.Unit)
		}
	}
	if out == (volume.Usage{}) {
		return out, fmt.Errorf("NodeGetVolumeStats: the driver tells nothing")
	}
	return out, nil
}
