package libcontainer

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	_ "github.com/opencontainers/cgroups/devices" // device rules
	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // the C constructor
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/keeper"
	"keelson.dev/keelson/runtime/keeper/server"
)

// Engine is a server.Engine.
type Engine struct {
	log    *slog.Logger
	limits func() (bundle.Limits, error)
}

// New makes the engine.
func New(log *slog.Logger) *Engine {
	return &Engine{log: log, limits: sync.OnceValues(bundle.OwnLimits)}
}

// Init turns this process into a container's first process, if that is what it
// was started as; then it does not return. main calls it before anything else.
func Init() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		libcontainer.Init()
	}
}

// Start makes the container and its first process.
func (e *Engine) Start(s server.Start, created func(pid int) error) error {
	spec, err := bundle.ReadSpec(s.Dir)
	if err != nil {
		return err
	}
	process, err := e.process(spec.Process, s.Stdio)
	if err != nil {
		return err
	}
	process.Init = true
	container, err := e.create(s, spec)
	if err != nil {
		return startFailure(err)
	}
	if err := e.run(container, process, created); err != nil {
		if derr := container.Destroy(); derr != nil {
			e.log.Warn("undo start", "container", s.ID, "err", derr)
		}
		return startFailure(err)
	}
	return nil
}

func (e *Engine) create(s server.Start, spec *specs.Spec) (*libcontainer.Container, error) {
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:   s.ID,
		NoNewKeyring: true, // a keyring for each container exhausts root's quota of 200
		Spec:         spec,
	})
	if err != nil {
		return nil, err
	}
	root := filepath.Join(s.Dir, bundle.EngineName)
	// What an attempt that was killed left would be taken for a container.
	if err := os.RemoveAll(root); err != nil {
		return nil, err
	}
	return libcontainer.Create(root, s.ID, config)
}

func (e *Engine) run(container *libcontainer.Container, process *libcontainer.Process, created func(pid int) error) error {
	if err := container.Start(process); err != nil {
		return err
	}
	pid, err := process.Pid()
	if err == nil {
		err = created(pid)
	}
	if err == nil {
		err = container.Exec()
	}
	if err != nil {
		_ = process.Signal(unix.SIGKILL)
		_, _ = process.Wait()
	}
	return err
}

// Exec makes a further process.
func (e *Engine) Exec(x server.Exec) (int, error) {
	var p specs.Process
	if err := bundle.ReadJSON(x.Process, &p); err != nil {
		return 0, fmt.Errorf("read exec's process: %w", err)
	}
	process, err := e.process(&p, x.Stdio)
	if err != nil {
		return 0, err
	}
	container, err := libcontainer.Load(filepath.Join(x.Dir, bundle.EngineName), x.ID)
	if errors.Is(err, libcontainer.ErrNotExist) {
		return 0, &keeper.Failure{Kind: keeper.KindNotRunning, Message: "container " + x.ID + " has no engine state"}
	}
	if err != nil {
		return 0, fmt.Errorf("load container %s: %w", x.ID, err)
	}
	if err := container.Start(process); err != nil {
		return 0, startFailure(err)
	}
	return process.Pid()
}

func startFailure(err error) error {
	return &keeper.Failure{Kind: keeper.KindStart, Message: err.Error()}
}
