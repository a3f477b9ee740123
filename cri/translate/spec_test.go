package translate

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var update = flag.Bool("update", false, "write the scenarios' wanted output anew")

// scenario is a file in testdata: what goes in, and the spec or the error that
// must come out. Seccomp rules are left out of the output, since they are the
// library's.
type scenario struct {
	Why     string
	Config  json.RawMessage
	Pod     json.RawMessage `json:",omitempty"`
	Image   ocispec.ImageConfig
	User    User
	Sandbox Sandbox
	Mounts  []struct {
		Source string
		Peer   Peer
	} `json:",omitempty"`
	Devices        []Device `json:",omitempty"`
	TargetPID      int      `json:",omitempty"`
	SeccompProfile string   `json:",omitempty"`
	Host           Host
	WantError      string      `json:",omitempty"`
	Want           *specs.Spec `json:",omitempty"`
}

// plain is the scenario with nothing special in it.
const plain = "testdata/plain.json"

func load(t *testing.T, path string) (sc scenario) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&sc); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return sc
}

func (sc scenario) input(t *testing.T) Input {
	t.Helper()
	in := Input{
		ID: "c0ffee", Config: &runtimeapi.ContainerConfig{}, Pod: &runtimeapi.PodSandboxConfig{}, Image: sc.Image, User: sc.User,
		Rootfs: "/rootfs", Sandbox: sc.Sandbox, TargetPID: sc.TargetPID, Devices: sc.Devices, Host: sc.Host,
		SeccompProfile: []byte(sc.SeccompProfile),
	}
	if in.Host.Capabilities == nil {
		in.Host.Capabilities = knownCaps
	}
	if err := protojson.Unmarshal(sc.Config, in.Config); err != nil {
		t.Fatalf("config: %v", err)
	}
	if len(sc.Pod) > 0 {
		if err := protojson.Unmarshal(sc.Pod, in.Pod); err != nil {
			t.Fatalf("pod: %v", err)
		}
	}
	for i, m := range in.Config.GetMounts() {
		in.Mounts = append(in.Mounts, Mount{Source: sc.Mounts[i].Source, Peer: sc.Mounts[i].Peer, Request: m})
	}
	return in
}

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d scenarios: %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".json"), func(t *testing.T) { runScenario(t, f) })
	}
}

func runScenario(t *testing.T, path string) {
	sc := load(t, path)
	got, err := Spec(sc.input(t))
	if sc.WantError != "" {
		if err == nil || !strings.Contains(err.Error(), sc.WantError) || !errors.Is(err, ErrInvalid) {
			t.Fatalf("%s: error %v, want one that wraps ErrInvalid and says %q", sc.Why, err, sc.WantError)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s: %v", sc.Why, err)
	}
	if got.Linux.Seccomp != nil {
		if len(got.Linux.Seccomp.Syscalls) == 0 {
			t.Error("a seccomp profile without a rule")
		}
		got.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: got.Linux.Seccomp.DefaultAction}
	}
	if *update {
		sc.Want = got
		b, err := json.MarshalIndent(sc, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if g, w := mustJSON(t, got), mustJSON(t, sc.Want); g != w {
		t.Errorf("%s\ngot  %s\nwant %s", sc.Why, g, w)
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestSpecIsDeterministic: two computations from one input are equal.
func TestSpecIsDeterministic(t *testing.T) {
	sc := load(t, plain)
	var first string
	for range 20 {
		s, err := Spec(sc.input(t))
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = mustJSON(t, s)
		} else if got := mustJSON(t, s); got != first {
			t.Fatalf("two results differ:\n%s\n%s", first, got)
		}
	}
}

// A container that names no AppArmor profile gets the runtime's where there is one, unless it is privileged; a name counts
// for both, and where the kernel has no AppArmor it is an error.
func TestAppArmor(t *testing.T) {
	in := load(t, plain).input(t)
	profile := func(kind runtimeapi.SecurityProfile_ProfileType, name string) *runtimeapi.SecurityProfile {
		return &runtimeapi.SecurityProfile{ProfileType: kind, LocalhostRef: name}
	}
	for _, c := range []struct {
		new                    *runtimeapi.SecurityProfile
		old, plain, privileged string
	}{
		{nil, "", "standard", ""}, {nil, "runtime/default", "standard", ""}, {nil, "unconfined", "", ""}, {nil, "localhost/p", "p", "p"},
		{profile(runtimeapi.SecurityProfile_RuntimeDefault, ""), "localhost/p", "standard", ""},
		{profile(runtimeapi.SecurityProfile_Unconfined, ""), "", "", ""}, {profile(runtimeapi.SecurityProfile_Localhost, "localhost/p"), "localhost/q", "p", "p"},
	} {
		for _, host := range []bool{true, false} {
			for privileged, want := range map[bool]string{false: c.plain, true: c.privileged} {
				sec := in.Config.Linux.SecurityContext
				sec.Apparmor, sec.ApparmorProfile, sec.Privileged = c.new, c.old, privileged
				in.Host.AppArmor, in.AppArmorDefault = host, map[bool]string{true: "standard"}[host]
				s, err := Spec(in)
				switch {
				case !host && want == "p":
					if !errors.Is(err, ErrInvalid) {
						t.Errorf("%v %q on a host without AppArmor: %v", c.new, c.old, err)
					}
				case err != nil:
					t.Errorf("%v %q: %v", c.new, c.old, err)
				case host && s.Process.ApparmorProfile != want || !host && s.Process.ApparmorProfile != "":
					t.Errorf("%v %q, privileged %t: profile %q, want %q", c.new, c.old, privileged, s.Process.ApparmorProfile, want)
				}
			}
		}
	}
}

// SELinux options where SELinux is off are an error that names the option and the way out; told to ignore them, the
// container is the one that it is without them.
func TestSELinuxOff(t *testing.T) {
	in := load(t, plain).input(t)
	without, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]*runtimeapi.SELinuxOption{
		`type "container_t"`: {Type: "container_t", Level: "s0:c1,c2"}, `level "s0:c1,c2"`: {Level: "s0:c1,c2"},
		`user "system_u"`: {User: "system_u"}, `role "system_r"`: {Role: "system_r"}, "": {},
	} {
		in.Config.Linux.SecurityContext.SelinuxOptions = o
		for _, privileged := range []bool{false, true} {
			in.Config.Linux.SecurityContext.Privileged = privileged
			in.Host.IgnoreSELinux = false
			_, err := Spec(in)
			if refused := errors.Is(err, ErrInvalid) && strings.Contains(err.Error(), want) && strings.Contains(err.Error(), "--ignore-selinux-options"); refused != (want != "") {
				t.Errorf("%v, privileged %t: %v", o, privileged, err)
			}
			in.Host.IgnoreSELinux = true
			got, err := Spec(in)
			if err != nil {
				t.Errorf("%v, to be ignored: %v", o, err)
			} else if !privileged && mustJSON(t, got) != mustJSON(t, without) {
				t.Errorf("%v, to be ignored: %s", o, mustJSON(t, got))
			}
		}
	}
}

// TestMerge: a zero field of an update leaves what is in force, and the OOM score that the process was started with stays.
func TestMerge(t *testing.T) {
	have := &runtimeapi.LinuxContainerResources{CpuShares: 512, MemoryLimitInBytes: 1 << 20, OomScoreAdj: 900, Unified: map[string]string{"memory.high": "1", "pids.max": "2"}}
	update := &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 2 << 20, OomScoreAdj: 100, CpusetCpus: "0", Unified: map[string]string{"pids.max": "3"}}
	want := &runtimeapi.LinuxContainerResources{
		CpuShares: 512, MemoryLimitInBytes: 2 << 20, OomScoreAdj: 900, CpusetCpus: "0", Unified: map[string]string{"memory.high": "1", "pids.max": "3"},
	}
	if got := Merge(have, update); !proto.Equal(got, want) {
		t.Errorf("merged %v, want %v", got, want)
	}
}
