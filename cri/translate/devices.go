package translate

import (
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// setDevices denies every device, then allows those asked for; the engine adds
// the harmless ones (null, zero, full, random, urandom, tty, ptmx). A privileged
// container gets all of the host's and no rule.
func setDevices(in Input, s *specs.Spec) error {
	if privileged(in) {
		for _, d := range in.Host.Devices {
			s.Linux.Devices = append(s.Linux.Devices, node(d))
		}
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return nil
	}
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range in.Devices {
		if !strings.HasPrefix(d.Path, "/") {
			return invalid("device path %q in the container is not absolute", d.Path)
		}
		if d.Permissions == "" || strings.Trim(d.Permissions, "rwm") != "" {
			return invalid("device %s has the permissions %q, which are not made of r, w and m", d.Path, d.Permissions)
		}
		s.Linux.Devices = append(s.Linux.Devices, node(d))
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: ptr(d.Major), Minor: ptr(d.Minor), Access: d.Permissions})
	}
	s.Linux.Resources.Devices = rules
	return nil
}

func node(d Device) specs.LinuxDevice {
	return specs.LinuxDevice{
		Path: d.Path, Type: d.Type, Major: d.Major, Minor: d.Minor,
		FileMode: ptr(os.FileMode(d.Mode)), UID: ptr(d.UID), GID: ptr(d.GID),
	}
}
