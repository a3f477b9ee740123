package translate

import (
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// defaultPath is what a shell finds when neither image nor pod sets PATH.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func procNS(pid int, kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", pid, kind) }

func setProcess(in Input, s *specs.Spec) error {
	c := in.Config
	sc := c.GetLinux().GetSecurityContext()
	args, err := Args(c.GetCommand(), c.GetArgs(), in.Image)
	if err != nil {
		return err
	}
	env, err := environment(in)
	if err != nil {
		return err
	}
	cwd := c.GetWorkingDir()
	if cwd == "" {
		cwd = in.Image.WorkingDir
	}
	if cwd == "" {
		cwd = "/"
	}
	if !strings.HasPrefix(cwd, "/") || strings.ContainsRune(cwd, 0) {
		return invalid("working directory %q is not an absolute path", cwd)
	}
	oom := max(int(c.GetLinux().GetResources().GetOomScoreAdj()), in.Host.OOMScoreAdjMin)
	oom = min(oom, 1000)
	s.Process = &specs.Process{
		Terminal:        c.GetTty(),
		User:            processUser(in.User, sc),
		Args:            args,
		Env:             env,
		Cwd:             cwd,
		NoNewPrivileges: sc.GetNoNewPrivs(),
		OOMScoreAdj:     &oom,
		Rlimits:         in.Host.Rlimits,
	}
	return nil
}

// Args joins a request's command and args with the image's entrypoint and
// command: a command replaces both, args replace the image's command only.
func Args(command, args []string, image ocispec.ImageConfig) ([]string, error) {
	var out []string
	switch {
	case len(command) > 0:
		out = append(append(out, command...), args...)
	case len(args) > 0:
		out = append(append(out, image.Entrypoint...), args...)
	default:
		out = append(append(out, image.Entrypoint...), image.Cmd...)
	}
	if len(out) == 0 || out[0] == "" {
		return nil, invalid("no command: neither the container nor its image names one")
	}
	for _, a := range out {
		if strings.ContainsRune(a, 0) {
			return nil, invalid("an argument contains a NUL byte")
		}
	}
	return out, nil
}

// environment: the image's, then the runtime's, then the request's; the last
// value of a name wins and keeps the first one's place.
func environment(in Input) ([]string, error) {
	var env envList
	env.set(defaultPath)
	for _, e := range in.Image.Env {
		if strings.Contains(e, "=") && !strings.ContainsRune(e, 0) {
			env.set(e)
		}
	}
	if in.Config.GetTty() {
		env.setDefault("TERM=xterm")
	}
	if in.Sandbox.Hostname != "" {
		env.set("HOSTNAME=" + in.Sandbox.Hostname)
	}
	for _, kv := range in.Config.GetEnvs() {
		key, value := kv.GetKey(), string(kv.GetValue())
		if key == "" || strings.ContainsAny(key, "=\x00") || strings.ContainsRune(value, 0) {
			return nil, invalid("environment variable name %q is empty or holds '=' or NUL, or its value holds NUL", key)
		}
		env.set(key + "=" + value)
	}
	return env.list, nil
}

type envList struct {
	list  []string
	index map[string]int
}

func (e *envList) set(kv string) {
	name, _, _ := strings.Cut(kv, "=")
	if e.index == nil {
		e.index = map[string]int{}
	}
	if i, ok := e.index[name]; ok {
		e.list[i] = kv
		return
	}
	e.index[name] = len(e.list)
	e.list = append(e.list, kv)
}

func (e *envList) setDefault(kv string) {
	name, _, _ := strings.Cut(kv, "=")
	if _, ok := e.index[name]; !ok {
		e.set(kv)
	}
}

// processUser applies the supplemental groups policy. The primary group is
// always among the additional ones, so that a file which denies that group
// cannot be opened by leaving it (CVE-2022-2995).
func processUser(u User, sc *runtimeapi.LinuxContainerSecurityContext) specs.User {
	groups := []uint32{u.GID}
	if sc.GetSupplementalGroupsPolicy() == runtimeapi.SupplementalGroupsPolicy_Merge {
		groups = append(groups, u.Groups...)
	}
	for _, g := range sc.GetSupplementalGroups() {
		groups = append(groups, uint32(g))
	}
	// Not sorted: the order in which groups were asked for is kept.
	var out []uint32
	for _, g := range groups {
		if !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return specs.User{UID: u.UID, GID: u.GID, AdditionalGids: out}
}

// UserString is the "user[:group]" to resolve in the image for a request, as
// the CRI defines it.
func UserString(sc *runtimeapi.LinuxContainerSecurityContext, image ocispec.ImageConfig) (string, error) {
	user := ""
	switch {
	case sc.GetRunAsUser() != nil && sc.GetRunAsUsername() != "":
		return "", invalid("run_as_user and run_as_username are both set")
	case sc.GetRunAsUser() != nil:
		if !validID(sc.GetRunAsUser().GetValue()) {
			return "", invalid("run_as_user %d is not between 0 and 2147483647", sc.GetRunAsUser().GetValue())
		}
		user = fmt.Sprint(sc.GetRunAsUser().GetValue())
	case sc.GetRunAsUsername() != "":
		user = sc.GetRunAsUsername()
	}
	for _, g := range sc.GetSupplementalGroups() {
		if !validID(g) {
			return "", invalid("supplemental group %d is not between 0 and 2147483647", g)
		}
	}
	if g := sc.GetRunAsGroup(); g != nil {
		if user == "" {
			return "", invalid("run_as_group is set without run_as_user or run_as_username")
		}
		if !validID(g.GetValue()) {
			return "", invalid("run_as_group %d is not between 0 and 2147483647", g.GetValue())
		}
		return fmt.Sprintf("%s:%d", user, g.GetValue()), nil
	}
	if user != "" {
		return user, nil
	}
	return image.User, nil
}

// validID refuses what a 32-bit signed reader would take for another id
// (CVE-2024-40635).
func validID(id int64) bool { return id >= 0 && id <= 1<<31-1 }
