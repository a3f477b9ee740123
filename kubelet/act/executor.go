package act

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/reference"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/qos"
	"keelson.dev/keelson/volume"
)

// Config of an Executor. All fields are required unless said otherwise.
type Config struct {
	// Root is the kubelet's directory, /var/lib/kubelet: pods/<uid>/... below it is ours.
	Root string
	// LogRoot is the directory of pod logs, /var/log/pods. LinkRoot gets one symbolic link per container, as log
	// collectors expect in /var/log/containers; "" for none.
	LogRoot, LinkRoot string
	// NodeName is this node's name in the API; Hostname what pods on the host network see as theirs.
	NodeName, Hostname string
	DNS                DNS
	// SeccompDefault gives containers without a profile the runtime's default one instead of none.
	SeccompDefault bool
	// SELinux tells whether the node has it; see SELinuxOn.
	SELinux bool
	// NodeMemory is the node's capacity in bytes, the scale of OOM scores.
	NodeMemory int64
}

// API is what an Executor reads from the cluster while it makes a container.
type API interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Services visible as environment in namespace: its own and default/kubernetes.
	Services(ctx context.Context, namespace string) ([]*corev1.Service, error)
	RuntimeHandler(ctx context.Context, class string) (string, error)
	// Node returns this node or an error while it is not known.
	Node() (*corev1.Node, error)
}

// Deps of an Executor; all required.
type Deps struct {
	CRI    *criclient.Client
	API    API
	Events record.EventRecorder
	Tree   *qos.Tree
	// SubPath makes a part of a mounted volume usable, see kubelet.Volumes.
	SubPath func(ctx context.Context, pod *corev1.Pod, container string, index int, v volume.Mounted, name, subPath string) (string, error)
	// Devices says what a container's devices need, as part of its configuration; nil for nothing.
	Devices func(ctx context.Context, pod *corev1.Pod, container string) (*runtimeapi.ContainerConfig, error)
	Log     *slog.Logger
}

// Executor carries out actions.
type Executor struct {
	cfg Config
	Deps

	usersMu sync.Mutex // one pod at a time chooses its user IDs
}

// New makes an Executor.
func New(cfg Config, d Deps) *Executor { return &Executor{cfg: cfg, Deps: d} }

// Error is a failure as the container's waiting state shows it.
type Error struct {
	Reason string // ErrImagePull, CreateContainerConfigError, ...
	Err    error
}

func (e *Error) Error() string { return e.Reason + ": " + e.Message() }

// Message is the text without the reason.
func (e *Error) Message() string { return criclient.Message(e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Mounted is a volume as the volume manager has mounted it.
type Mounted struct {
	// HostPath is the volume's directory, file or device on the node.
	HostPath string
	ReadOnly bool
	// Block: HostPath is a block device for volumeDevices.
	Block bool
	// Image is set for an image volume that the runtime is to mount itself; HostPath is empty then.
	Image string
	// Host: these are the node's own files, which are not labelled for a pod.
	Host bool
}

// PodDir is the pod's directory below Root.
func (e *Executor) PodDir(uid types.UID) string {
	return filepath.Join(e.cfg.Root, "pods", string(uid))
}

// LogDir is the pod's log directory.
func (e *Executor) LogDir(pod *corev1.Pod) string {
	return filepath.Join(e.cfg.LogRoot, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// Prepare makes the pod's directories and cgroup. It may be called again.
func (e *Executor) Prepare(pod *corev1.Pod) error {
	dir := e.PodDir(pod.UID)
	for d, mode := range map[string]os.FileMode{
		dir: 0o750, filepath.Join(dir, "volumes"): 0o750, filepath.Join(dir, "plugins"): 0o750,
		filepath.Join(dir, "containers"): 0o750,
	} {
		if err := os.MkdirAll(d, mode); err != nil {
			return fmt.Errorf("make directory of pod %s: %w", pod.UID, err)
		}
	}
	return e.Tree.Ensure(pod)
}

// Event records an event on the pod.
func (e *Executor) Event(pod *corev1.Pod, kind, reason, format string, args ...any) {
	e.Events.Eventf(pod, kind, reason, format, args...)
}

// ContainerEvent records an event on one container of the pod, which shows as its field path.
func (e *Executor) ContainerEvent(pod *corev1.Pod, name, kind, reason, format string, args ...any) {
	e.Events.Eventf(Reference(pod, name), kind, reason, format, args...)
}

// Reference refers to one container of a pod.
func Reference(pod *corev1.Pod, name string) *corev1.ObjectReference {
	ref, err := reference.GetReference(podScheme, pod)
	if err != nil { // only for a kind that the scheme lacks
		ref = &corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
	}
	if name != "" {
		ref.FieldPath = fieldPath(pod, name)
	}
	return ref
}

func fieldPath(pod *corev1.Pod, name string) string {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == name {
			return "spec.initContainers{" + name + "}"
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		if c.Name == name {
			return "spec.ephemeralContainers{" + name + "}"
		}
	}
	return "spec.containers{" + name + "}"
}

// linkName is the name of a container's log link, by which log collectors know pod, namespace, name and ID.
func (e *Executor) linkName(namespace, pod, container, id string) string {
	name := pod + "_" + namespace + "_" + container
	const most = 255 - len("-.log") - 64 // a file name's limit
	if len(name) > most {
		name = name[:most]
	}
	return filepath.Join(e.cfg.LinkRoot, strings.ReplaceAll(name, "/", "_")+"-"+id+".log")
}

// unlink removes a container's log link.
func (e *Executor) unlink(pod *corev1.Pod, c observe.Container) {
	if e.cfg.LinkRoot != "" {
		_ = os.Remove(e.linkName(pod.Namespace, pod.Name, c.Name, c.ID)) // a link left behind points nowhere
	}
}
