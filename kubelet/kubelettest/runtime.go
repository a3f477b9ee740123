package kubelettest

import (
	"context"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Runtime is the model. Containers run until Exit or a stop, and end at once when their image is "exit:<code>" or their
// command is sh -c "exit <code>". An image
// whose name begins with "missing" cannot be pulled. It is safe for concurrent use.
type Runtime struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer

	// Userns makes Status say that pods can have user namespaces. Set before use.
	Userns bool
	// Recursive makes Status say that mounts can be read-only with all below them. Set before use.
	Recursive bool
	// User is whom containers are said to run as. Set before use.
	User *runtimeapi.ContainerUser
	// OnExec answers ExecSync; nil answers exit code 0. Set before use.
	OnExec func(container string, cmd []string) (stdout string, code int32)
	// Streams answers Exec, Attach and PortForward with addresses. Set before use.
	Streams Streams
	// Private tells whether a registry refuses an image to a user; nil refuses none. Set before use.
	Private func(image, user string) bool
	// Plain makes it a runtime without an event stream, such as containerd 1.6. Set before use.
	Plain bool
	// IgnoreTerm makes StopContainer wait for its whole timeout. Set before use.
	IgnoreTerm bool

	mu         sync.Mutex
	onCall     func(method string)
	onStats    func() []*runtimeapi.PodSandboxStats // guarded by mu
	seq        int
	sandboxes  []*box
	containers []*ctr
	images     map[string]*runtimeapi.Image
	journal    []string
	watchers   map[chan *runtimeapi.ContainerEventResponse]bool
	fail       map[string]error
}

// Streams hands out addresses of streams; the published CRI streaming server is one.
type Streams interface {
	GetExec(*runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error)
	GetAttach(*runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error)
	GetPortForward(*runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error)
}

type box struct {
	status *runtimeapi.PodSandboxStatus
	config *runtimeapi.PodSandboxConfig
}

type ctr struct {
	status *runtimeapi.ContainerStatus
	config *runtimeapi.ContainerConfig
	box    string
	dead   chan struct{}
}

// New starts a Runtime that ends with the test and returns it with a connection to it.
func New(t testing.TB) (*Runtime, *grpc.ClientConn) {
	t.Helper()
	r := &Runtime{
		images:   map[string]*runtimeapi.Image{},
		watchers: map[chan *runtimeapi.ContainerEventResponse]bool{},
		fail:     map[string]error{},
	}
	lis := bufconn.Listen(1 << 20)
	srv := grpc.NewServer(grpc.UnaryInterceptor(r.after))
	runtimeapi.RegisterRuntimeServiceServer(srv, r)
	runtimeapi.RegisterImageServiceServer(srv, r)
	go srv.Serve(lis) // ends with srv.Stop
	conn, err := grpc.NewClient("passthrough:///fake",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatalf("connect to the model runtime: %v", err)
	}
	t.Cleanup(func() {
		conn.Close()
		srv.Stop()
	})
	return r, conn
}

// after tells OnCall's function of finished calls.
func (r *Runtime) after(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	res, err := handle(ctx, req)
	r.mu.Lock()
	tell := r.onCall
	r.mu.Unlock()
	if err == nil && tell != nil {
		tell(path.Base(info.FullMethod))
	}
	return res, err
}

// OnCall has f called with the method of each unary call that has succeeded, before its caller hears of it.
func (r *Runtime) OnCall(f func(method string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onCall = f
}

// Limit is the memory limit in force, in bytes, of the newest container of that name in the pod of that name.
func (r *Runtime) Limit(pod, name string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.containers) - 1; i >= 0; i-- {
		c := r.containers[i]
		if c.config.GetMetadata().GetName() != name || c.config.GetLabels()["io.kubernetes.pod.name"] != pod {
			continue
		}
		if l := c.status.GetResources().GetLinux(); l != nil {
			return l.GetMemoryLimitInBytes()
		}
		return c.config.GetLinux().GetResources().GetMemoryLimitInBytes()
	}
	return 0
}

// Running counts the running containers of that name in the pod of that name.
func (r *Runtime) Running(pod, name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.containers {
		if c.status.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING &&
			c.config.GetMetadata().GetName() == name && c.config.GetLabels()["io.kubernetes.pod.name"] == pod {
			n++
		}
	}
	return n
}

// Journal returns the calls that changed something, in order, as "Verb object".
func (r *Runtime) Journal() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.journal)
}

// Fail makes the next calls of method fail with err until it is called again with nil.
func (r *Runtime) Fail(method string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail[method] = err
}

// Exit ends the running container of that name in the pod of that name.
func (r *Runtime) Exit(pod, name string, code int32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.status.GetMetadata().GetName() == name && c.config.GetLabels()["io.kubernetes.pod.name"] == pod &&
			c.status.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING {
			r.exit(c, code)
			return nil
		}
	}
	return fmt.Errorf("pod %s has no running container %s", pod, name)
}

// Lose makes the state of a pod's containers unknown, as of a runtime that can no longer tell.
func (r *Runtime) Lose(pod string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.config.GetLabels()["io.kubernetes.pod.name"] == pod {
			c.status.State = runtimeapi.ContainerState_CONTAINER_UNKNOWN
		}
	}
}

// StopBox makes a pod's sandbox die, as after a crash of its holder; its containers live on.
func (r *Runtime) StopBox(pod string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.sandboxes {
		if b.status.GetMetadata().GetName() == pod {
			b.status.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
			r.tell(b.status.GetId(), runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, b)
		}
	}
}

// Sandbox is the configuration of a pod's newest sandbox; nil for none.
func (r *Runtime) Sandbox(pod string) *runtimeapi.PodSandboxConfig {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.sandboxes) - 1; i >= 0; i-- {
		if b := r.sandboxes[i]; b.config.GetMetadata().GetName() == pod {
			return b.config
		}
	}
	return nil
}

// Config returns the configuration of the newest container of that name in the pod of that name, or nil.
func (r *Runtime) Config(pod, name string) *runtimeapi.ContainerConfig {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.containers) - 1; i >= 0; i-- {
		c := r.containers[i]
		if c.config.GetMetadata().GetName() == name && c.config.GetLabels()["io.kubernetes.pod.name"] == pod {
			return c.config
		}
	}
	return nil
}

// Empty tells whether nothing is left of any pod.
func (r *Runtime) Empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sandboxes) == 0 && len(r.containers) == 0
}

// note writes the journal and returns the failure that was asked for. Preconditions: mu is held.
func (r *Runtime) note(method, object string) error {
	if err := r.fail[method]; err != nil {
		return err
	}
	r.journal = append(r.journal, method+" "+object)
	return nil
}

func (r *Runtime) id() string {
	r.seq++
	return fmt.Sprintf("%08x%056x", r.seq, 0) // the beginnings differ: a prefix names one
}

// exit ends a container. Preconditions: mu is held.
func (r *Runtime) exit(c *ctr, code int32) {
	if c.status.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return
	}
	c.status.State = runtimeapi.ContainerState_CONTAINER_EXITED
	c.status.FinishedAt = time.Now().UnixNano()
	c.status.ExitCode, c.status.Reason = code, "Error"
	if code == 0 {
		c.status.Reason = "Completed"
	}
	close(c.dead)
	r.tell(c.status.GetId(), runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, r.find(c.box))
}

// tell sends an event to all watchers; one that does not read loses it, as it may with any runtime.
func (r *Runtime) tell(id string, kind runtimeapi.ContainerEventType, b *box) {
	ev := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, CreatedAt: time.Now().UnixNano()}
	if b != nil {
		ev.PodSandboxStatus = &runtimeapi.PodSandboxStatus{Id: b.status.GetId(), Metadata: b.status.GetMetadata()}
		ev.ContainersStatuses = r.statuses(b)
	}
	for w := range r.watchers {
		select {
		case w <- ev:
		default:
		}
	}
}

// statuses describes a pod's containers. Preconditions: mu is held.
func (r *Runtime) statuses(b *box) (out []*runtimeapi.ContainerStatus) {
	for _, c := range r.containers {
		if c.box == b.status.GetId() {
			out = append(out, proto.Clone(c.status).(*runtimeapi.ContainerStatus))
		}
	}
	return out
}

// info is what there is to tell beside the status: nothing, but it can be asked for.
func info(verbose bool) map[string]string {
	if !verbose {
		return nil
	}
	return map[string]string{"model": "{}"}
}

func (r *Runtime) find(id string) *box {
	for _, b := range r.sandboxes {
		if b.status.GetId() == id {
			return b
		}
	}
	return nil
}

func (r *Runtime) container(id string) *ctr {
	for _, c := range r.containers {
		if c.status.GetId() == id {
			return c
		}
	}
	return nil
}

func notFound(what, id string) error {
	return status.Errorf(codes.NotFound, "%s %q not found", what, id)
}

func selects(want, have map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// ImageStatus implements CRI.
func (r *Runtime) ImageStatus(_ context.Context, q *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, img := range r.images {
		if name == q.GetImage().GetImage() || img.GetId() == q.GetImage().GetImage() {
			return &runtimeapi.ImageStatusResponse{Image: img, Info: info(q.GetVerbose())}, nil
		}
	}
	return &runtimeapi.ImageStatusResponse{}, nil
}

// PullImage implements CRI.
func (r *Runtime) PullImage(_ context.Context, q *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := q.GetImage().GetImage()
	if err := r.note("PullImage", name); err != nil {
		return nil, err
	}
	if strings.HasPrefix(name, "missing") {
		return nil, status.Errorf(codes.NotFound, "failed to resolve reference %q: not found", name)
	}
	if r.Private != nil && r.Private(name, q.GetAuth().GetUsername()) {
		return nil, status.Errorf(codes.Unauthenticated, "pull %q: 401 Unauthorized", name)
	}
	if img := r.images[name]; img != nil {
		return &runtimeapi.PullImageResponse{ImageRef: img.GetId()}, nil
	}
	id := fmt.Sprintf("sha256:%064x", len(r.images)+1)
	r.images[name] = &runtimeapi.Image{Id: id, RepoTags: []string{name}, Size: 4096, Uid: &runtimeapi.Int64Value{}}
	return &runtimeapi.PullImageResponse{ImageRef: id}, nil
}

// ListImages implements CRI.
func (r *Runtime) ListImages(_ context.Context, q *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &runtimeapi.ListImagesResponse{}
	for name, img := range r.images {
		if want := q.GetFilter().GetImage().GetImage(); want != "" && want != name && want != img.GetId() {
			continue
		}
		out.Images = append(out.Images, img)
	}
	return out, nil
}

// RemoveImage implements CRI.
func (r *Runtime) RemoveImage(_ context.Context, q *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, img := range r.images {
		if name == q.GetImage().GetImage() || img.GetId() == q.GetImage().GetImage() {
			delete(r.images, name)
		}
	}
	return &runtimeapi.RemoveImageResponse{}, r.note("RemoveImage", q.GetImage().GetImage())
}

// ImageFsInfo implements CRI.
func (r *Runtime) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := &runtimeapi.UInt64Value{}
	for _, img := range r.images {
		used.Value += img.GetSize()
	}
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{UsedBytes: used, FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/"}}}}, nil
}
