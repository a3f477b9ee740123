package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/kubelet/act"
	"keelson.dev/keelson/kubelet/pluginwatch"
	"keelson.dev/keelson/kubelet/shutdown"
	"keelson.dev/keelson/volume"
)

// Config says how a node is run. Zero values get the defaults given with each field.
type Config struct {
	// Node is what the node says of itself.
	Node Node
	// Paths on the node.
	Paths Paths
	// Server is the kubelet's own API. No address, no server.
	Server Server
	// CRIEndpoint is the runtime's socket, "unix:///run/keelson/cri.sock". Unused when Deps.CRI is given.
	CRIEndpoint string
	// ClusterDNS are the addresses that pods with dnsPolicy ClusterFirst ask; ClusterDomain is what they search,
	// default "cluster.local".
	ClusterDNS    []netip.Addr
	ClusterDomain string
	// CgroupRoot is the cgroup below which kubepods is made, as a cgroupfs path. Default "/".
	CgroupRoot string
	// SystemdCgroups makes the pods' cgroups slices of systemd's, unless the runtime says which driver it has: then that counts.
	SystemdCgroups bool
	// ParallelPulls bounds image pulls at a time; 1 is serial, 0 means no bound.
	ParallelPulls int
	// NoSeccompDefault leaves containers without a seccomp profile unconfined, as upstream does by default; here
	// they get the runtime's default profile.
	NoSeccompDefault bool
	// Resources held back from pods, in Kubernetes' units ("cpu", "memory", "ephemeral-storage").
	Reserved corev1.ResourceList
	// UnsafeSysctls that pods may set beside the safe ones: names, or prefixes that end with "*".
	UnsafeSysctls []string
	// Logs bounds container logs.
	Logs Logs
	// Eviction are the thresholds under which pods are evicted.
	Eviction Eviction
	// ImageGC are the disk usages, in percent, at which unused images are removed.
	ImageGC ImageGC
	// Shutdown says how pods end when the machine shuts down.
	Shutdown Shutdown
	// StatusEvery is how often the node's status is reported although nothing changed. Default 5 min.
	StatusEvery time.Duration
	// ProbeMark is the mark (SO_MARK) of probes' connections, by which the packet filter knows them; 0 for none.
	ProbeMark int
	// LeaseEvery is how often the node's Lease is renewed. Default 10 s; the Lease holds four times as long.
	LeaseEvery time.Duration
}

// Node is a node's identity.
type Node struct {
	// Name in the API. Required.
	Name string
	// Hostname that pods on the host network see. Default: Name.
	Hostname string
	// IPs of the node, the primary one first. Default: the address of the default route.
	IPs []netip.Addr
	// Labels and Taints it registers with, beside the standard labels.
	Labels map[string]string
	Taints []corev1.Taint
	// PodCIDRs given to the node at registration; usually the controllers do that.
	PodCIDRs []string
	// ProviderID of the cloud's machine; optional.
	ProviderID string
	// MaxPods is the number of pods that the node takes. Default 110.
	MaxPods int
	// PidsPerPod bounds the processes of one pod; 0 for no bound.
	PidsPerPod int64
	// SingleProcessOOMKill leaves a container whose process was killed for memory to its other processes. Default: all of it
	// ends, where the kernel can (cgroup v2).
	SingleProcessOOMKill bool
	// Version reported in nodeInfo. Default "v1.37.2+keelson1".
	Version string
}

// Paths on the node.
type Paths struct {
	Root      string // default /var/lib/kubelet
	PodLogs   string // default /var/log/pods
	LogLinks  string // default the folder "containers" beside PodLogs; "-" for none
	Manifests string // folder of static pods; "" for none
	// ResolvConf is the node's resolver configuration. Default /etc/resolv.conf; "-" for an empty one.
	ResolvConf string
}

// Server is the kubelet's HTTPS API.
type Server struct {
	// Addr to listen on, "0.0.0.0:10250"; "" for no server.
	Addr string
	// TLS has the certificate; client certificates are asked for, and checked against ClientCA.
	TLS *tls.Config
	// ClientCA is the PEM bundle that signs client certificates; "" for none.
	ClientCA []byte
	// HealthAddr serves /healthz in the clear, "127.0.0.1:10248"; "" for none.
	HealthAddr string
	// Authn and Authz replace the delegation to the API server (TokenReview, SubjectAccessReview); optional.
	Authn authenticator.Request
	Authz authorizer.Authorizer
}

// Logs bounds container logs.
type Logs struct {
	MaxBytes int64 // of one file before it is rotated; default 10 MiB
	MaxFiles int   // of one container instance, the current one included; default 5
}

// Eviction thresholds; zero takes the default, negative switches the signal off.
type Eviction struct {
	MemoryAvailable   int64   // bytes; default 100 MiB
	NodefsAvailable   float64 // percent; default 10
	NodefsInodesFree  float64 // percent; default 5
	ImagefsAvailable  float64 // percent; default 15
	PidsAvailable     float64 // percent of the kernel's limit; default 1
	PressureCondition time.Duration
}

// Shutdown of the machine, as systemd-logind announces it.
type Shutdown struct {
	// Off: pods are not ended in order.
	Off bool
	// Grace is what all pods together have, Critical the last part of it that critical pods have for themselves. Zero:
	// as long as logind waits anyway, a third of it for critical ones.
	Grace, Critical time.Duration
	// ByPriority has periods for more kinds of pods, instead of Grace and Critical.
	ByPriority []shutdown.Period
	// Bus is the address of the system bus; "" for the machine's.
	Bus string
}

// ImageGC thresholds in percent of the image filesystem.
type ImageGC struct {
	High int           // default 85
	Low  int           // default 80
	Age  time.Duration // an image younger than this is left; default 2 min
}

// Volumes mounts what pods ask for. All methods are idempotent; the mount table is their record. *volume.Manager is one
// but for the type of Mount's result.
type Volumes interface {
	// Mount makes all volumes of a pod available and says by volume name where. It may take long and ends with ctx.
	Mount(ctx context.Context, pod *corev1.Pod) (map[string]act.Mounted, error)
	// Refresh brings content that changes (ConfigMaps, Secrets, tokens) up to date in volumes that are mounted.
	Refresh(ctx context.Context, pod *corev1.Pod) error
	// RefreshAt is when Refresh is due although nothing changed (tokens expire); zero for never.
	RefreshAt(uid types.UID) time.Time
	// SubPath makes a part of a mounted volume usable and returns its host path, checked by descriptor.
	SubPath(ctx context.Context, pod *corev1.Pod, container string, index int, v volume.Mounted, name, subPath string) (string, error)
	// Unmount takes all volumes of a pod away, also those of a pod that this process has not mounted.
	Unmount(ctx context.Context, uid types.UID) error
}

// Deps are what a Kubelet works with.
type Deps struct {
	Client  kubernetes.Interface     // required
	CRI     grpc.ClientConnInterface // optional: instead of Config.CRIEndpoint
	Volumes Volumes                  // required
	// Measure tells what pods' volumes hold; optional. volume.Manager.Measure is one.
	Measure func(ctx context.Context) map[types.UID][]volume.Measurement
	// Plugins look after the kinds of plugins that register themselves in <root>/plugins_registry; optional.
	Plugins map[string]pluginwatch.Handler
	// InUse names the attached volumes that must not be detached; optional. See Recheck.
	InUse func() []corev1.UniqueVolumeName
	Log   *slog.Logger // optional
}

func (c *Config) complete() {
	def(&c.Node.Hostname, c.Node.Name)
	def(&c.Node.MaxPods, 110)
	def(&c.Node.Version, "v1.37.2+keelson1")
	def(&c.Paths.Root, "/var/lib/kubelet")
	def(&c.Paths.PodLogs, "/var/log/pods")
	def(&c.Paths.LogLinks, filepath.Join(filepath.Dir(c.Paths.PodLogs), "containers"))
	def(&c.Paths.ResolvConf, "/etc/resolv.conf")
	for _, p := range []*string{&c.Paths.LogLinks, &c.Paths.ResolvConf} {
		if *p == "-" {
			*p = ""
		}
	}
	def(&c.ClusterDomain, "cluster.local")
	def(&c.CgroupRoot, "/")
	def(&c.StatusEvery, 5*time.Minute)
	def(&c.LeaseEvery, 10*time.Second)
	def(&c.Logs.MaxBytes, 10<<20)
	def(&c.Logs.MaxFiles, 5)
	def(&c.Eviction.MemoryAvailable, 100<<20)
	def(&c.Eviction.NodefsAvailable, 10)
	def(&c.Eviction.NodefsInodesFree, 5)
	def(&c.Eviction.ImagefsAvailable, 15)
	def(&c.Eviction.PidsAvailable, 1)
	def(&c.Eviction.PressureCondition, 5*time.Minute)
	def(&c.ImageGC.High, 85)
	def(&c.ImageGC.Low, 80)
	def(&c.ImageGC.Age, 2*time.Minute)
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) validate(d Deps) error {
	switch {
	case c.Node.Name == "":
		return errors.New("kubelet: Config.Node.Name is required")
	case d.Client == nil:
		return errors.New("kubelet: Deps.Client is required")
	case d.Volumes == nil:
		return errors.New("kubelet: Deps.Volumes is required")
	case d.CRI == nil && c.CRIEndpoint == "":
		return errors.New("kubelet: either Deps.CRI or Config.CRIEndpoint is required")
	case c.Server.Addr != "" && c.Server.TLS == nil:
		return errors.New("kubelet: Config.Server.TLS is required for its server")
	}
	return nil
}
