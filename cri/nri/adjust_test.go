package nri

import (
	"encoding/json"
	"testing"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func spec() *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{Args: []string{"a"}, Env: []string{"X=1", "Y=2"}, Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_DATA"}}},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc"}, {Destination: "/data", Source: "/old"}},
		Linux: &specs.Linux{
			Resources:  &specs.LinuxResources{},
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace, Path: "/n"}},
			Devices:    []specs.LinuxDevice{{Path: "/dev/a"}},
		},
	}
}

func TestAdjustNothing(t *testing.T) {
	want, _ := json.Marshal(spec())
	for _, a := range []*api.ContainerAdjustment{nil, {}, {Linux: &api.LinuxContainerAdjustment{Resources: &api.LinuxResources{Cpu: &api.LinuxCPU{}, Memory: &api.LinuxMemory{}}}, Hooks: &api.Hooks{}}} {
		s := spec()
		if err := Adjust(s, a, true, nil); err != nil {
			t.Fatal(err)
		}
		if got, _ := json.Marshal(s); string(got) != string(want) {
			t.Errorf("%v changes the spec to\n%s, from\n%s", a, got, want)
		}
	}
}

func TestAdjust(t *testing.T) {
	a := &api.ContainerAdjustment{}
	a.AddEnv("X", "9")
	a.RemoveEnv("Y")
	a.AddEnv("Z", "3")
	a.AddMount(&api.Mount{Destination: "/data", Source: "/new", Type: "bind", Options: []string{"rbind"}})
	a.AddMount(&api.Mount{Destination: "/data/sub", Source: "/s", Type: "bind"})
	a.RemoveDevice("/dev/a")
	a.AddDevice(&api.LinuxDevice{Path: "/dev/b", Type: "b", Major: 8, Minor: 1})
	a.AddOrReplaceNamespace(&api.LinuxNamespace{Type: "network", Path: "/other"})
	a.SetLinuxMemoryLimit(1 << 20)
	a.SetLinuxCPUShares(10)
	a.AddLinuxHugepageLimit("2MB", 4)
	a.AddLinuxUnified("memory.high", "5")
	a.SetLinuxSysctl("net.core.somaxconn", "7")
	a.AddCDIDevice(&api.CDIDevice{Name: "v/c=d"})
	a.SetArgs([]string{"b"})
	a.AddRlimit("RLIMIT_CORE", 2, 1)
	s := spec()
	var injected []string
	err := Adjust(s, a, false, func(_ *specs.Spec, names []string) error { injected = names; return nil })
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(map[string]any{
		"env": s.Process.Env, "args": s.Process.Args, "mounts": len(s.Mounts), "last": s.Mounts[len(s.Mounts)-1].Source, "devices": s.Linux.Devices[0].Path,
		"rules": len(s.Linux.Resources.Devices), "namespaces": s.Linux.Namespaces, "memory": s.Linux.Resources.Memory, "cpu": s.Linux.Resources.CPU,
		"huge": s.Linux.Resources.HugepageLimits, "unified": s.Linux.Resources.Unified, "sysctl": s.Linux.Sysctl, "cdi": injected, "limits": s.Process.Rlimits,
	})
	const want = `{"args":["b"],"cdi":["v/c=d"],"cpu":{"shares":10},"devices":"/dev/b","env":["X=9","Z=3"],"huge":[{"pageSize":"2MB","limit":4}],"last":"/s","limits":[{"type":"RLIMIT_DATA","hard":0,"soft":0},{"type":"RLIMIT_CORE","hard":2,"soft":1}],` +
		`"memory":{"limit":1048576},"mounts":3,"namespaces":[{"type":"pid"},{"type":"network","path":"/other"}],"rules":1,"sysctl":{"net.core.somaxconn":"7"},"unified":{"memory.high":"5"}}`
	if string(got) != want {
		t.Errorf("adjusted:\n%s\nwant:\n%s", got, want)
	}
	classes := &api.ContainerAdjustment{}
	classes.SetLinuxBlockIOClass("gold")
	if err := Adjust(spec(), classes, true, nil); err == nil {
		t.Error("a class that nobody defines was taken")
	}
	odd := &api.ContainerAdjustment{}
	odd.AddOrReplaceNamespace(&api.LinuxNamespace{Type: "soul"})
	if err := Adjust(spec(), odd, true, nil); err == nil {
		t.Error("a namespace of no kind was taken")
	}
}
