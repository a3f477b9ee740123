package metric

import "keelson.dev/keelson/runtime/cgroup"

func ofDisk(name, help string, value func(Disk) uint64) row {
	return row{name, help, gauge, []string{"device"}, func(s Sample) []point {
		if s.Disk == nil {
			return nil
		}
		return []point{{value(*s.Disk), []string{s.Disk.Device}}}
	}}
}

func ofDevices(name, help string, value func(Device) uint64) row {
	return row{name, help, counter, []string{"device"}, func(s Sample) []point {
		return each(s.Extra.Devices, func(d Device) point { return point{value(d), []string{d.Major + ":" + d.Minor}} })
	}}
}

var diskRows = []row{
	ofDisk("container_fs_usage_bytes", "Bytes that the writable layer takes.", func(d Disk) uint64 { return d.Usage }),
	ofDisk("container_fs_limit_bytes", "Size of the filesystem under the writable layer.", func(d Disk) uint64 { return d.Limit }),
	ofDisk("container_fs_inodes_total", "Inodes of that filesystem.", func(d Disk) uint64 { return d.Inodes }),
	ofDisk("container_fs_inodes_free", "Free inodes of that filesystem.", func(d Disk) uint64 { return d.InodesFree }),
	ofDevices("container_fs_reads_bytes_total", "Bytes read from block devices.", func(d Device) uint64 { return d.ReadBytes }),
	ofDevices("container_fs_reads_total", "Reads from block devices.", func(d Device) uint64 { return d.ReadOps }),
	ofDevices("container_fs_writes_bytes_total", "Bytes written to block devices.", func(d Device) uint64 { return d.WriteBytes }),
	ofDevices("container_fs_writes_total", "Writes to block devices.", func(d Device) uint64 { return d.WriteOps }),
	{"container_blkio_device_usage_total", "Bytes read from and written to block devices.", counter, []string{"device", "major", "minor", "operation"}, func(s Sample) []point {
		var out []point
		for _, d := range s.Extra.Devices {
			name := d.Major + ":" + d.Minor
			out = append(out,
				point{d.ReadBytes, []string{name, d.Major, d.Minor, "Read"}},
				point{d.WriteBytes, []string{name, d.Major, d.Minor, "Write"}})
		}
		return out
	}},
}

func ofInterfaces(name, help string, value func(Interface) uint64) row {
	return row{name, help, counter, []string{"interface"}, func(s Sample) []point {
		return each(s.Network, func(i Interface) point { return point{value(i), []string{i.Name}} })
	}}
}

var networkRows = []row{
	ofInterfaces("container_network_receive_bytes_total", "Bytes received.", func(i Interface) uint64 { return i.RxBytes }),
	ofInterfaces("container_network_receive_packets_total", "Packets received.", func(i Interface) uint64 { return i.RxPackets }),
	ofInterfaces("container_network_receive_errors_total", "Errors while receiving.", func(i Interface) uint64 { return i.RxErrors }),
	ofInterfaces("container_network_receive_packets_dropped_total", "Received packets that were dropped.", func(i Interface) uint64 { return i.RxDropped }),
	ofInterfaces("container_network_transmit_bytes_total", "Bytes sent.", func(i Interface) uint64 { return i.TxBytes }),
	ofInterfaces("container_network_transmit_packets_total", "Packets sent.", func(i Interface) uint64 { return i.TxPackets }),
	ofInterfaces("container_network_transmit_errors_total", "Errors while sending.", func(i Interface) uint64 { return i.TxErrors }),
	ofInterfaces("container_network_transmit_packets_dropped_total", "Packets dropped while sending.", func(i Interface) uint64 { return i.TxDropped }),
}

// pressure: "waiting" is some tasks, "stalled" is all. The kernel counts
// microseconds.
func pressure(resource, what, help string, value func(cgroup.PSI) uint64) row {
	return row{"container_pressure_" + resource + "_" + what + "_seconds_total", help, counter, nil, func(s Sample) []point {
		p, ok := s.Stats.PSI[resource]
		if !ok {
			return nil
		}
		return []point{{value: value(p) / 1e6}}
	}}
}

var pressureRows = func() []row {
	var out []row
	for _, r := range []string{"cpu", "memory", "io"} {
		out = append(out,
			pressure(r, "waiting", "Seconds in which some task waited for "+r+".", func(p cgroup.PSI) uint64 { return p.Some.Total }),
			pressure(r, "stalled", "Seconds in which all tasks waited for "+r+".", func(p cgroup.PSI) uint64 { return p.Full.Total }))
	}
	return out
}()
