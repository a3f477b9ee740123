package cri

import (
	"context"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"keelson.dev/keelson/image"
	"keelson.dev/keelson/network"
	"keelson.dev/keelson/runtime/container"
	"keelson.dev/keelson/runtime/sandbox"
)

// Images is the part of image.Store that the image service needs.
type Images interface {
	Pull(ctx context.Context, ref string, auth *image.Auth) (image.Image, error)
	Get(ref string) (image.Image, error)
	List() []image.Image
	Remove(ctx context.Context, ref string) error
	Usage() (image.Usage, error)
}

// Rootfs is the part of image.Store that containers stand on.
type Rootfs interface {
	MountRootfs(ctx context.Context, containerID, imageID string, opt image.RootfsOptions) (string, error)
	UnmountRootfs(ctx context.Context, containerID string) error
	RootfsUsage(containerID string) (image.Usage, error)
	MountImage(ctx context.Context, mountID, imageID string, opt image.ViewOptions) (string, error)
	UnmountImage(ctx context.Context, mountID string) error
}

// Lifecycle is how containers come and go.
type Lifecycle interface {
	Create(ctx context.Context, cfg container.Config) error
	Start(ctx context.Context, id string) (container.State, error)
	Stop(ctx context.Context, id string, sig syscall.Signal, grace time.Duration) error
	Remove(ctx context.Context, id string) error
	Update(ctx context.Context, id string, res *specs.LinuxResources) error
}

// Observer is how containers are seen.
type Observer interface {
	State(id string) (container.State, error)
	List() []container.State
	Spec(id string) (*specs.Spec, error)
	Stats(id string, detail bool) (container.Stats, error)
	Events(ctx context.Context) <-chan container.Event
}

// Streams is how one talks to what runs in a container.
type Streams interface {
	Exec(ctx context.Context, id string, cfg container.ExecConfig) (int32, error)
	Attach(ctx context.Context, id string, s container.Streams) error
	ReopenLog(ctx context.Context, id string) error
}

// Containers is container.Manager.
type Containers interface {
	Lifecycle
	Observer
	Streams
	Status() error // nil while containers can be started
}

// Sandboxes is sandbox.Manager.
type Sandboxes interface {
	Create(ctx context.Context, cfg sandbox.Config) (*sandbox.Sandbox, error)
	Remove(ctx context.Context, id string) error
	Get(id string) (*sandbox.Sandbox, error)
	List() []*sandbox.Sandbox
}

// Network is network.Network.
type Network interface {
	Setup(ctx context.Context, pod network.Pod) (network.Attachment, error)
	Teardown(ctx context.Context, sandboxID string) error
	Status() error
}

// Deps are the parts that the server composes.
type Deps struct {
	Images     Images
	Rootfs     Rootfs
	Containers Containers
	Sandboxes  Sandboxes
	Network    Network
	// ResolveUser looks a user up in a mounted root filesystem.
	ResolveUser func(rootfs, user string) (image.User, error)
}
