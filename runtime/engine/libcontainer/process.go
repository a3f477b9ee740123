package libcontainer

import (
	"fmt"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/keeper/server"
)

// process turns an OCI process into the library's, within our own limits.
func (e *Engine) process(p *specs.Process, io server.Stdio) (*libcontainer.Process, error) {
	if p == nil || len(p.Args) == 0 {
		return nil, startFailure(fmt.Errorf("the process has no arguments"))
	}
	limits, err := e.limits()
	if err != nil {
		return nil, err
	}
	for _, change := range bundle.Clamp(p, limits) {
		e.log.Info("clamped to what this process may give", "change", change)
	}
	out := &libcontainer.Process{
		Args:            p.Args,
		Env:             p.Env,
		UID:             int(p.User.UID),
		GID:             int(p.User.GID),
		Cwd:             p.Cwd,
		Label:           p.SelinuxLabel,
		AppArmorProfile: p.ApparmorProfile,
		NoNewPrivileges: &p.NoNewPrivileges,
		Scheduler:       p.Scheduler,
		IOPriority:      p.IOPriority,
		ConsoleSocket:   io.Console,
	}
	for _, gid := range p.User.AdditionalGids {
		out.AdditionalGroups = append(out.AdditionalGroups, int(gid))
	}
	if p.ConsoleSize != nil {
		out.ConsoleWidth, out.ConsoleHeight = uint16(p.ConsoleSize.Width), uint16(p.ConsoleSize.Height)
	}
	if c := p.Capabilities; c != nil {
		out.Capabilities = &configs.Capabilities{
			Bounding: c.Bounding, Effective: c.Effective, Inheritable: c.Inheritable,
			Permitted: c.Permitted, Ambient: c.Ambient,
		}
	}
	if out.Rlimits, err = convertRlimits(p.Rlimits); err != nil {
		return nil, startFailure(err)
	}
	if out.CPUAffinity, err = configs.ConvertCPUAffinity(p.ExecCPUAffinity); err != nil {
		return nil, startFailure(err)
	}
	setStdio(out, io)
	return out, nil
}

// setStdio keeps nil files nil interfaces: the library then opens /dev/null.
func setStdio(p *libcontainer.Process, io server.Stdio) {
	if io.In != nil {
		p.Stdin = io.In
	}
	if io.Out != nil {
		p.Stdout = io.Out
	}
	if io.Err != nil {
		p.Stderr = io.Err
	}
}

func convertRlimits(in []specs.POSIXRlimit) ([]configs.Rlimit, error) {
	var out []configs.Rlimit
	for _, r := range in {
		which, ok := bundle.RlimitNumber(r.Type)
		if !ok {
			return nil, fmt.Errorf("unknown rlimit %q: %w", r.Type, unix.EINVAL)
		}
		out = append(out, configs.Rlimit{Type: which, Hard: r.Hard, Soft: r.Soft})
	}
	return out, nil
}
