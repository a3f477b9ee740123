package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/runtime/keeper"
)

const podNamespace = "crash"

// The containers. keeps counts in blocks, one more at each SIGUSR1, and says
// bye; ends counts to its end.
const (
	keepsScript = `i=0; more() { todo=; n=0; while [ $n -lt 200 ]; do i=$((i+1)); n=$((n+1)); echo line $i; done; }
trap todo=1 USR1; trap end=1 TERM; more
while [ -z "$end" ]; do [ -z "$todo" ] || more; sleep 0.1 & wait $!; done; echo bye; exit 33`
	endsScript = `i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; done; exit 7`
	block      = 200
	endsLines  = 300
)

// life is one pass through the scenario: what a client knows of its pod.
type life struct {
	*node
	pod         *runtimeapi.PodSandboxConfig
	podID       string
	keeps, ends *member
	rotated     bool
	found       bool   // the daemon has found the archive in the image folder
	before      string // how often an image of the folder had been pinned or let go before
}

// member is a container of the pod, by the attempt that counts.
type member struct {
	name, script string
	attempt      uint32
	id           string
	mounts       []*runtimeapi.Mount
	namespace    runtimeapi.NamespaceMode
}

// step is one thing that a client wants, and makes again if it fails.
type step struct {
	name string
	do   func(*life, context.Context) error
}

var steps = []step{
	{"pull", (*life).pull},
	{"import", (*life).load},
	{"pod", (*life).runPod},
	{"create", func(l *life, ctx context.Context) error { return l.create(ctx, l.keeps) }},
	{"start", func(l *life, ctx context.Context) error { return l.start1(ctx, l.keeps) }},
	{"exec", (*life).exec},
	{"update", (*life).update},
	{"second", (*life).second},
	{"rotate", (*life).rotate},
	{"restart", (*life).restart},
	{"upgrade", (*life).upgrade},
	{"folder", (*life).folder},
	{"stop", (*life).stop},
	{"remove", (*life).remove},
	{"stop pod", (*life).stopPod},
	{"remove pod", (*life).removePod},
	{"remove images", (*life).removeImages},
}

// restarts are the steps that are there for the points of recovery only.
func restarts(name string) bool { return name == "restart" || name == "upgrade" || name == "folder" }

func newLife(n *node, uid string) *life {
	logs := filepath.Join(n.PodLogs(), uid)
	return &life{node: n, pod: &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: podNamespace, Uid: uid}, Hostname: "crash", LogDirectory: logs,
		PortMappings: []*runtimeapi.PortMapping{{HostPort: int32(n.Port), ContainerPort: 80, HostIp: "127.0.0.1"}},
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: n.cgroupRoot() + "/pods/" + uid,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_POD}}},
	},
		keeps: &member{name: "keeps", script: keepsScript, namespace: runtimeapi.NamespaceMode_CONTAINER,
			mounts: []*runtimeapi.Mount{{ContainerPath: "/image", Image: &runtimeapi.ImageSpec{Image: importedImage}, Readonly: true}}},
		ends: &member{name: "ends", script: endsScript, namespace: runtimeapi.NamespaceMode_POD},
	}
}

func (l *life) pull(ctx context.Context) error {
	_, err := l.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: pulledImage}})
	return err
}

// load imports the archive over the admin socket, as `keelson image import` does.
func (l *life) load(ctx context.Context) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(l.Dir, "run", "node.sock"))
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node/images/import", bytes.NewReader(l.archive))
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("import: %s", answer.Status)
	}
	return nil
}

func (l *life) runPod(ctx context.Context) error {
	resp, err := l.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: l.pod})
	if err == nil {
		l.podID = resp.PodSandboxId
	}
	return err
}

func (l *life) create(ctx context.Context, m *member) error {
	resp, err := l.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: l.podID, SandboxConfig: l.pod, Config: &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: m.name, Attempt: m.attempt}, Image: &runtimeapi.ImageSpec{Image: pulledImage},
		Command: []string{"sh", "-c", m.script}, LogPath: l.logOf(m), Mounts: m.mounts,
		Linux: &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{}, SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: m.namespace}, Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}}},
	}})
	if err == nil {
		m.id = resp.ContainerId
	}
	return err
}

func (l *life) logOf(m *member) string { return fmt.Sprintf("%s/%d.log", m.name, m.attempt) }

func (l *life) status(ctx context.Context, m *member) (*runtimeapi.ContainerStatus, error) {
	resp, err := l.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: m.id})
	return resp.GetStatus(), err
}

// start1 starts a container and goes by what it then is, as a kubelet does: a
// call that failed may have succeeded. One that could not start is followed by
// a next attempt; it must have done nothing.
func (l *life) start1(ctx context.Context, m *member) error {
	_, startErr := l.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: m.id})
	st, err := l.status(ctx, m)
	switch {
	case err != nil:
		return err
	case st.State == runtimeapi.ContainerState_CONTAINER_EXITED && st.Reason == "StartError":
		if text, _ := os.ReadFile(st.LogPath); len(text) > 0 {
			return fmt.Errorf("container %s is said not to have started, but wrote %q", m.name, text[:min(len(text), 100)])
		}
		m.attempt++
		return errors.Join(startErr, l.create(ctx, m), errAgain)
	case st.State == runtimeapi.ContainerState_CONTAINER_CREATED:
		return errors.Join(startErr, errAgain)
	}
	return nil
}

// errAgain asks for the step to be made again.
var errAgain = errors.New("not there yet")

func (l *life) second(ctx context.Context) error {
	if err := l.create(ctx, l.ends); err != nil {
		// What has run keeps its name: that is how a client learns of it.
		if st, serr := l.status(ctx, l.ends); l.ends.id == "" || serr != nil || st.State == runtimeapi.ContainerState_CONTAINER_CREATED {
			return err
		}
	}
	if err := l.start1(ctx, l.ends); err != nil {
		return err
	}
	for {
		st, err := l.status(ctx, l.ends)
		if err != nil || st.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			return err
		}
		time.Sleep(time.Millisecond) // CRI has events, but this client dies with each daemon
	}
}

func (l *life) exec(ctx context.Context) error {
	if err := l.awaitBlock(ctx); err != nil {
		return err
	}
	resp, err := l.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: l.keeps.id, Cmd: []string{"sh", "-c", "cat /image/data/two; exit 5"}, Timeout: 60})
	if err == nil && (string(resp.Stdout) != "two" || resp.ExitCode != 5) {
		err = fmt.Errorf("exec: %q, %q, code %d", resp.Stdout, resp.Stderr, resp.ExitCode)
	}
	return err
}

// awaitBlock waits until the container has its traps: it has printed a block.
func (l *life) awaitBlock(ctx context.Context) error {
	for ctx.Err() == nil {
		text, _ := os.ReadFile(filepath.Join(l.pod.LogDirectory, l.logOf(l.keeps)))
		if bytes.Contains(text, fmt.Appendf(nil, " line %d\n", block)) || l.rotated {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}

func (l *life) update(ctx context.Context) error {
	_, err := l.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: l.keeps.id,
		Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}})
	return err
}

// rotate moves the log away while more of it comes.
func (l *life) rotate(ctx context.Context) error {
	path := filepath.Join(l.pod.LogDirectory, l.logOf(l.keeps))
	if err := l.more(ctx); err != nil {
		return err
	}
	if !l.rotated {
		if err := os.Rename(path, path+".20260101-000000"); err != nil {
			return err
		}
		l.rotated = true
	}
	if _, err := l.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: l.keeps.id}); err != nil {
		return err
	}
	return l.more(ctx)
}

func (l *life) more(ctx context.Context) error {
	_, err := l.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: l.keeps.id, Cmd: []string{"kill", "-USR1", "1"}, Timeout: 60})
	return err
}

// restart kills both programs and has them find everything again.
func (l *life) restart(ctx context.Context) error {
	if err := errors.Join(l.Kill(), l.killKeeper(), l.node.start(ctx)); err != nil {
		return err
	}
	return l.look1(ctx)
}

// upgrade has the daemon find a keeper of another build.
func (l *life) upgrade(ctx context.Context) error {
	if err := errors.Join(l.Kill(), l.killKeeper()); err != nil {
		return err
	}
	programs, err := filepath.Glob(filepath.Join(l.Dir, "data/agent/bin/keelson-keeper-*"))
	if err != nil || len(programs) == 0 {
		return fmt.Errorf("no keeper program: %w", err)
	}
	old := filepath.Join(l.Dir, "keelson-keeper-of-before")
	if err := os.Link(programs[0], old); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	cmd, err := l.spawn(old)
	for errors.Is(err, keeper.ErrAlive) && ctx.Err() == nil { // threads of the one just killed still hold its lock
		time.Sleep(time.Millisecond)
		cmd, err = l.spawn(old)
	}
	if err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // ends with the keeper
	if err := l.node.start(ctx); err != nil {
		return err
	}
	return l.look1(ctx)
}

// folder has the daemon find an archive in the image folder when it starts, and
// find it gone. The file is written once, also if the step is made again: anew
// it would be imported anew though its image is there and pinned, and what an
// import leaves behind that is killed in the middle stays for an hour.
func (l *life) folder(ctx context.Context) error {
	file := filepath.Join(l.Dir, "data/agent/images/crash.tar")
	written := func() error {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		return os.WriteFile(file, l.archive, 0o600)
	}
	removed := func() error {
		if err := os.Remove(file); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	if !l.found {
		if err := l.seeFolder(ctx, written, true); err != nil {
			return err
		}
		l.found, l.before = true, ""
	}
	if err := l.seeFolder(ctx, removed, false); err != nil {
		return err
	}
	return l.look1(ctx)
}

// seeFolder starts the daemon after a change, and waits until it has pinned the folder's image, or let it go.
func (l *life) seeFolder(ctx context.Context, change func() error, pinned bool) error {
	trace := func() string {
		text, _ := os.ReadFile(l.trace())
		return fmt.Sprint(bytes.Count(text, []byte("image.folder.pinned")))
	}
	if l.before == "" {
		l.before = trace()
	}
	if err := l.restarted(ctx, change); err != nil {
		return err
	}
	// A daemon that ended meanwhile does not come again by itself.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for there := false; ; {
		st, err := l.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: importedImage}}, grpc.WaitForReady(true))
		switch {
		case err != nil && (!there || ctx.Err() == nil):
			return err
		case err != nil: // it was restarted beside this, between the pin and the point
			return nil
		}
		// What is seen is not yet saved: a kill now would take it back. The point is behind both.
		if there = st.GetImage() != nil && st.GetImage().GetPinned() == pinned; there && trace() != l.before {
			return nil
		}
		time.Sleep(5 * time.Millisecond) // the folder is read beside the serving: there is nothing to wait on
	}
}

func (l *life) spawn(program string) (*exec.Cmd, error) {
	environment.Lock()
	defer environment.Unlock()
	if err := os.Setenv("KEELSON_FAILPOINT", "@"+l.points()); err != nil {
		return nil, err
	}
	defer os.Unsetenv("KEELSON_FAILPOINT")
	return keeper.Spawn(program, filepath.Join(l.Dir, "run/runtime/containers/.keeper"))
}

// look1 sees that the pod is as it was.
func (l *life) look1(ctx context.Context) error {
	st, err := l.status(ctx, l.keeps)
	if err == nil && st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return fmt.Errorf("container keeps is %s (%s %s) though nobody stopped it", st.State, st.Reason, st.Message)
	}
	return err
}

func (l *life) stop(ctx context.Context) error {
	if err := l.awaitBlock(ctx); err != nil {
		return err
	}
	_, err := l.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: l.keeps.id, Timeout: 60})
	if err != nil {
		return err
	}
	return l.count(ctx)
}

// count sees that each container is there once.
func (l *life) count(ctx context.Context) error {
	pods, err := l.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	list, err := l.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return err
	}
	seen := map[string]int{}
	for _, c := range list.Containers {
		seen[fmt.Sprintf("%s %d", c.Metadata.Name, c.Metadata.Attempt)]++
	}
	want := int(l.keeps.attempt + l.ends.attempt + 2)
	if len(pods.Items) != 1 || len(seen) != want || len(list.Containers) != want {
		return fatal{fmt.Errorf("%d pods, containers %v; want 1 and %d", len(pods.Items), seen, want)}
	}
	return nil
}

// fatal is an error that another try cannot mend.
type fatal struct{ error }

func (l *life) remove(ctx context.Context) error {
	for _, m := range []*member{l.keeps, l.ends} {
		if _, err := l.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: m.id}); err != nil {
			return err
		}
	}
	return nil
}

func (l *life) stopPod(ctx context.Context) error {
	_, err := l.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: l.podID})
	return err
}

func (l *life) removePod(ctx context.Context) error {
	_, err := l.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: l.podID})
	return err
}

func (l *life) removeImages(ctx context.Context) error {
	for _, name := range []string{pulledImage, importedImage} {
		if _, err := l.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: name}}); err != nil {
			return err
		}
	}
	return nil
}

// options is what the daemon was started with, from its own record.
func (n *node) options() (o struct {
	Node struct{ Bridge, CgroupRoot string }
}) {
	text, err := os.ReadFile(filepath.Join(n.Dir, "data", "instance.json"))
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil {
		panic(err) // the daemon runs: it has written it
	}
	return o
}

func (n *node) bridge() string     { return n.options().Node.Bridge }
func (n *node) cgroupRoot() string { return n.options().Node.CgroupRoot }

// output checks a container's log: every line once, in order.
func output(dir, logPath string) (lines []string, err error) {
	path := filepath.Join(dir, logPath)
	files, _ := filepath.Glob(path + ".*")
	for _, f := range append(files, path) {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		for record := range strings.Lines(string(text)) {
			fields := strings.SplitN(strings.TrimSuffix(record, "\n"), " ", 4)
			if len(fields) != 4 || fields[1] != "stdout" || fields[2] != "F" {
				return nil, fmt.Errorf("%s: odd record %q", f, record)
			}
			lines = append(lines, fields[3])
		}
	}
	return lines, nil
}
