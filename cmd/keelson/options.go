package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"keelson.dev/keelson/runtime/cgroup"
)

// options are every command's flags. Two instances on one machine need their own paths, ports, bridge and CIDRs.
type options struct {
	place   places
	node    nodeOptions
	plane   planeOptions
	logging logOptions
	told    told
}

// places are the folders and sockets of one instance.
type places struct {
	Data, Run, KubeletRoot, PodLogs, Kubeconfig, Config string
	ConfigFile                                          string `json:"-"`
}

type nodeOptions struct {
	Name, IP, Bridge, PodCIDR, ClusterCIDR, CgroupRoot, StaticPods string
	KubeletPort, HealthzPort, ProxyPort, MetricsPort, MaxPods      int
	ResolvConf                                                     string
	Shutdown, ShutdownCritical                                     time.Duration
	SingleOOM                                                      bool
	Runtime                                                        runtimeOptions
}

// runtimeOptions are the container runtime's own.
type runtimeOptions struct {
	StreamAddress, StreamCert, StreamKey string
	CDIDirs                              []string
	NRISocket, NRIPlugins, NRIConfigs    string
	CgroupDriver                         string
	SELinux, IgnoreSELinux               bool
}

type planeOptions struct {
	Address, Advertise, ServiceCIDR, DNS, Domain string
	Port                                         int
	TLSSANs, Balancer                            []string
	AuditPolicy, AuthenticationConfig            string
	Taint                                        bool
	SnapshotEvery                                time.Duration
	SnapshotKeep                                 int
	SnapshotDir                                  string
}

type logOptions struct{ Format, Level string }

const defaultData = "/var/lib/keelson"

func (o *options) paths(f *pflag.FlagSet) {
	p := &o.place
	f.StringVar(&p.Data, "data-dir", defaultData, "state that must survive a reboot")
	f.StringVar(&p.Run, "run-dir", "/run/keelson", "state that must not (a tmpfs)")
	f.StringVar(&p.KubeletRoot, "kubelet-dir", "/var/lib/kubelet", "pods' volumes, plugins")
	f.StringVar(&p.PodLogs, "pod-logs-dir", "/var/log/pods", "containers' logs")
	f.StringVar(&p.Config, "config-dir", "/etc/keelson", "registries (certs.d), image policy (policy.json), static pods (manifests), settings (config.yaml)")
	f.StringVar(&p.ConfigFile, "config", "", "flags' values, `name: value` in YAML (default <config-dir>/config.yaml and config.yaml.d/*.yaml); a variable KEELSON_NAME wins over it, a flag over both")
	f.StringVar(&p.Kubeconfig, "kubeconfig", "", "admin kubeconfig (default <config-dir>/keelson.yaml)")
	f.StringVar(&o.logging.Format, "log-format", "text", "text or json")
	f.StringVar(&o.logging.Level, "log-level", "info", "debug, info, warn or error")
}

func (p places) kubeconfig() string {
	if p.Kubeconfig != "" {
		return p.Kubeconfig
	}
	return filepath.Join(p.Config, "keelson.yaml")
}

func (p places) socket() string    { return filepath.Join(p.Run, "cri.sock") }
func (p places) admin() string     { return filepath.Join(p.Run, "node.sock") }
func (p places) agent() string     { return filepath.Join(p.Data, "agent") }
func (p places) server() string    { return filepath.Join(p.Data, "server") }
func (p places) images() string    { return filepath.Join(p.Data, "agent", "images") }
func (p places) volumes() string   { return filepath.Join(p.Data, "agent", "volumes") }
func (p places) manifests() string { return filepath.Join(p.Config, "manifests") }
func (p places) policy() string    { return filepath.Join(p.Config, "policy.json") }
func (p places) certs() []string {
	return []string{filepath.Join(p.Config, "certs.d"), "/etc/containerd/certs.d"}
}

func (o *options) nodeFlags(cmd *cobra.Command) {
	f, n := cmd.Flags(), &o.node
	f.StringVar(&n.Bridge, "bridge", "keelson0", "the pods' bridge")
	f.StringVar(&n.PodCIDR, "pod-cidr", "10.244.0.0/24", "this node's pod addresses")
	f.StringVar(&n.ClusterCIDR, "cluster-cidr", "10.244.0.0/16", "all nodes' pod addresses")
	f.StringVar(&n.CgroupRoot, "cgroup-root", "/", "the cgroup under which kubepods is made")
	r := &n.Runtime
	f.StringVar(&r.CgroupDriver, "cgroup-driver", "cgroupfs", "who makes the pods' cgroups: cgroupfs, systemd (slices and scopes), or auto: systemd where it is the init")
	f.StringVar(&r.StreamAddress, "stream-address", "127.0.0.1:0", "where the runtime serves exec, attach and port-forward to its clients")
	f.StringVar(&r.StreamCert, "stream-cert", "", "a PEM certificate that makes --stream-address serve TLS; with --stream-key")
	f.StringVar(&r.StreamKey, "stream-key", "", "the key of --stream-cert")
	f.StringVar(&r.NRISocket, "nri-socket", "/var/run/nri/nri.sock", "where node plugins (NRI) connect; empty turns them off")
	f.StringVar(&r.NRIPlugins, "nri-plugin-dir", "/opt/nri/plugins", "node plugins that are started with the runtime")
	f.StringVar(&r.NRIConfigs, "nri-plugin-config-dir", "/etc/nri/conf.d", "the settings of plugins in --nri-plugin-dir")
	f.StringSliceVar(&r.CDIDirs, "cdi-dir", []string{"/etc/cdi", "/var/run/cdi"}, "folders of CDI device specs")
	f.BoolVar(&r.SELinux, "selinux", false, "where SELinux is on, every container has labels of its own, not only those that ask for some: for hosts whose policy knows this runtime")
	f.BoolVar(&r.IgnoreSELinux, "ignore-selinux-options", false, "where SELinux is off, the runtime accepts SELinux options, which are then without effect, instead of refusing them: for kubelets that pass on whatever a manifest says. Keelson's own passes them on only where SELinux is on")
}

func (o *options) serverFlags(cmd *cobra.Command) {
	o.nodeFlags(cmd)
	f, n, p := cmd.Flags(), &o.node, &o.plane
	f.StringVar(&n.Name, "node-name", "", "the Node's name (default: the host's name)")
	f.StringVar(&n.IP, "node-ip", "", "the Node's address (default: the one of the default route)")
	f.IntVar(&n.KubeletPort, "kubelet-port", 10250, "the kubelet's API")
	f.IntVar(&n.HealthzPort, "healthz-port", 10248, "the kubelet's health, on loopback; 0 turns it off")
	f.IntVar(&n.ProxyPort, "proxy-healthz-port", 10256, "the Service proxy's health, which load balancers ask; 0 turns it off")
	f.IntVar(&n.MetricsPort, "proxy-metrics-port", 10249, "the Service proxy's metrics, on loopback; 0 turns them off")
	f.IntVar(&n.MaxPods, "max-pods", 250, "pods this node takes")
	f.BoolVar(&n.SingleOOM, "single-process-oom-kill", false, "a process that is out of memory ends alone, not its whole container with it (which cgroup v2 does, v1 never)")
	f.DurationVar(&n.Shutdown, "shutdown-grace-period", 0, "how long pods have to end when the machine shuts down (0: as long as systemd-logind waits anyway; less than 0: they are not ended in order)")
	f.DurationVar(&n.ShutdownCritical, "shutdown-grace-period-critical-pods", 0, "the last part of --shutdown-grace-period, for critical pods alone (default a third of it)")
	f.StringVar(&n.StaticPods, "pod-manifest-path", "", "static pods' folder (default <config-dir>/manifests)")
	f.StringVar(&n.ResolvConf, "resolv-conf", "/etc/resolv.conf", "the node's own resolver, for pods with dnsPolicy Default")
	f.StringVar(&p.Address, "bind-address", "0.0.0.0", "the API server's listening address")
	f.StringVar(&p.AuditPolicy, "audit-policy-file", "", "what the audit log <data-dir>/server/audit/audit.log records (default: a built-in policy of metadata)")
	f.StringVar(&p.AuthenticationConfig, "authentication-config", "", "OpenID Connect issuers whose tokens are believed: a file of kind AuthenticationConfiguration")
	f.IntVar(&p.Port, "https-port", 6443, "the API server's port")
	f.StringVar(&p.Advertise, "advertise-address", "", "the address by which others reach the API server (default: the Node's)")
	f.StringVar(&p.ServiceCIDR, "service-cidr", "10.96.0.0/12", "Service addresses; IPV4,IPV6 makes a dual-stack API: Services may have an address of each, and no pods behind that of IPv6, as pods have IPv4 addresses alone")
	f.StringVar(&p.DNS, "cluster-dns", "", "the cluster DNS' Service address (default: the tenth of the Service range)")
	f.StringVar(&p.Domain, "cluster-domain", "cluster.local", "the cluster's DNS domain")
	f.StringSliceVar(&p.TLSSANs, "tls-san", nil, "more names or addresses for the API server's certificate")
	f.StringSliceVar(&p.Balancer, "load-balancer-range", nil, "addresses for Services of type LoadBalancer, announced by this node: FIRST-LAST, a CIDR or one address; may be repeated")
	f.DurationVar(&p.SnapshotEvery, "snapshot-interval", 12*time.Hour, "how often the cluster is saved; 0 turns it off")
	f.IntVar(&p.SnapshotKeep, "snapshot-keep", 5, "scheduled snapshots that are kept")
	f.StringVar(&p.SnapshotDir, "snapshot-dir", "", "the snapshots' folder (default <data-dir>/snapshots)")
	f.BoolVar(&p.Taint, "taint-control-plane", false, "keep ordinary pods off this node")
}

// finish fills what depends on the machine and refuses what cannot work, naming the flag.
func (o *options) finish() error {
	if i, _, err := readInstance(o.place); err == nil && o.node.Name == "" {
		o.node.Name = i.Options.Node.Name // a host that was given another name is the same node
	}
	if o.node.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("--node-name: the host has no name: %w", err)
		}
		o.node.Name = strings.ToLower(host)
	}
	if o.node.IP == "" {
		ip, err := outboundIP()
		if err != nil {
			return fmt.Errorf("--node-ip: no address found on this machine (%w); name one", err)
		}
		o.node.IP = ip.String()
	}
	if o.plane.Advertise == "" {
		o.plane.Advertise = o.node.IP
	}
	if o.node.StaticPods == "" {
		o.node.StaticPods = o.place.manifests()
	}
	ranges, err := o.plane.serviceRanges()
	if err != nil {
		return err
	}
	services := ranges[0]
	pods, err := netip.ParsePrefix(o.node.ClusterCIDR)
	if err != nil {
		return fmt.Errorf("--cluster-cidr: %w", err)
	}
	if pods.Overlaps(services) {
		return fmt.Errorf("--service-cidr %s overlaps --cluster-cidr %s: choose ranges apart", services, pods)
	}
	if o.plane.DNS == "" {
		addr := services.Masked().Addr()
		for range 10 {
			addr = addr.Next()
		}
		o.plane.DNS = addr.String()
	}
	return nil
}

// serviceRanges are the ranges of Service addresses: that of IPv4, and that of IPv6 if there is one.
func (p planeOptions) serviceRanges() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for text := range strings.SplitSeq(p.ServiceCIDR, ",") {
		r, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("--service-cidr: %w", err)
		}
		out = append(out, r)
	}
	if len(out) > 2 || !out[0].Addr().Is4() || len(out) == 2 && !out[1].Addr().Is6() {
		return nil, fmt.Errorf("--service-cidr %s: a range of IPv4, and after it one of IPv6 for a dual-stack API", p.ServiceCIDR)
	}
	return out, nil
}

// outboundIP returns the address that the kernel would send from: no packet leaves. Without a default route, the first global one.
func outboundIP() (netip.Addr, error) {
	if conn, err := net.Dial("udp4", "192.0.2.1:9"); err == nil {
		defer conn.Close()
		return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr(), nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() && p.Addr().Is4() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no global IPv4 address")
}

// systemdCgroups says whether the cgroup driver is systemd.
func (r runtimeOptions) systemdCgroups() (bool, error) {
	runs := cgroup.SystemdRuns()
	switch r.CgroupDriver {
	case "cgroupfs":
		return false, nil
	case "auto":
		return runs, nil
	case "systemd":
		if !runs {
			return false, errors.New("--cgroup-driver systemd: this machine's init is not systemd (there is no /run/systemd/system); choose cgroupfs")
		}
		return true, nil
	}
	return false, fmt.Errorf("--cgroup-driver %q: cgroupfs, systemd or auto", r.CgroupDriver)
}

func (l logOptions) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	o := &slog.HandlerOptions{Level: level}
	switch l.Format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, o)), nil
	}
	return nil, fmt.Errorf("--log-format %q: text or json", l.Format)
}
