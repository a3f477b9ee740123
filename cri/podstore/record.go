package podstore

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// State tells how far an object's creation has come.
type State string

// The states of a record.
const (
	Creating State = "creating"
	Created  State = "created"
	// Stopped is a sandbox that was asked to stop: it takes no container and
	// starts none, whatever of it still runs.
	Stopped State = "stopped"
)

// Sandbox is a pod sandbox as it was asked for.
type Sandbox struct {
	ID        string
	State     State
	CreatedAt time.Time
	Config    *runtimeapi.PodSandboxConfig
	Handler   string
	// HostNetwork, NetNSPath and IPs are what the network gave.
	NetNSPath string
	IPs       []netip.Addr
	// NetworkDown is set once the pod's network was given back.
	NetworkDown bool
	// ProcessLabel and MountLabel are SELinux', if the host has it.
	ProcessLabel, MountLabel string
}

// Container is a container as it was asked for.
type Container struct {
	ID, SandboxID string
	State         State
	CreatedAt     time.Time
	Config        *runtimeapi.ContainerConfig
	// ImageID is "sha256:..." of the image in use, ImageRef its digested name.
	ImageID, ImageRef string
	// LogPath is absolute, "" when no log is kept.
	LogPath string
	// StopSignal is the number, StopSignalName the CRI's name of it.
	StopSignal     int
	StopSignalName runtimeapi.Signal
	// Process is the first process; an exec inherits all but its arguments.
	Process *specs.Process
	// Resources are those in force after the last update.
	Resources *runtimeapi.LinuxContainerResources
	// ImageMounts are the ids of the image volumes that this container holds, by
	// their place in the request's mounts; VolumeImages are the images' ids.
	ImageMounts, VolumeImages map[int]string
}

// SandboxName is the identity of a sandbox in requests.
func SandboxName(m *runtimeapi.PodSandboxMetadata) string {
	return join(m.GetNamespace(), m.GetName(), m.GetUid(), fmt.Sprint(m.GetAttempt()))
}

// ContainerName is the identity of a container in requests.
func ContainerName(sandboxID string, m *runtimeapi.ContainerMetadata) string {
	return join(sandboxID, m.GetName(), fmt.Sprint(m.GetAttempt()))
}

// join is unambiguous: no part of an identity may hold a NUL.
func join(parts ...string) string { return strings.Join(parts, "\x00") }

// protoJSON carries a message as JSON inside a JSON record, so that a record can
// be read with any tool.
type protoJSON struct{ m proto.Message }

func (p protoJSON) MarshalJSON() ([]byte, error) { return protojson.Marshal(p.m) }

func (p protoJSON) UnmarshalJSON(b []byte) error {
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, p.m)
}

// The alias types drop the methods, so that the fields encode as they are; the
// embedded wrapper fields then stand in for the messages.
type (
	sandboxFields   Sandbox
	containerFields Container
)

// MarshalJSON writes messages in their JSON mapping.
func (s *Sandbox) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		*sandboxFields
		Config protoJSON
	}{(*sandboxFields)(s), protoJSON{s.Config}})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *Sandbox) UnmarshalJSON(b []byte) error {
	s.Config = &runtimeapi.PodSandboxConfig{}
	return json.Unmarshal(b, &struct {
		*sandboxFields
		Config protoJSON
	}{(*sandboxFields)(s), protoJSON{s.Config}})
}

// MarshalJSON writes messages in their JSON mapping.
func (c *Container) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		*containerFields
		Config    protoJSON
		Resources protoJSON
	}{(*containerFields)(c), protoJSON{c.Config}, protoJSON{c.Resources}})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *Container) UnmarshalJSON(b []byte) error {
	c.Config, c.Resources = &runtimeapi.ContainerConfig{}, &runtimeapi.LinuxContainerResources{}
	return json.Unmarshal(b, &struct {
		*containerFields
		Config    protoJSON
		Resources protoJSON
	}{(*containerFields)(c), protoJSON{c.Config}, protoJSON{c.Resources}})
}

func (s *Sandbox) id() string     { return s.ID }
func (s *Sandbox) name() string   { return SandboxName(s.Config.GetMetadata()) }
func (s *Sandbox) state() State   { return s.State }
func (c *Container) id() string   { return c.ID }
func (c *Container) name() string { return ContainerName(c.SandboxID, c.Config.GetMetadata()) }
func (c *Container) state() State { return c.State }
