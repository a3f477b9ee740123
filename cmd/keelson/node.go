package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"keelson.dev/keelson/cri"
	"keelson.dev/keelson/cri/nri"
	"keelson.dev/keelson/image"
	"keelson.dev/keelson/network"
	"keelson.dev/keelson/network/netfilter"
	"keelson.dev/keelson/network/policy"
	"keelson.dev/keelson/runtime/container"
	"keelson.dev/keelson/runtime/sandbox"
	"keelson.dev/keelson/volume/csi"
)

// spareLinks are pod networks made in advance, so that a pod's start does not wait for one.
const spareLinks = 8

// node is the node's stack below the kubelet: images, processes, network, and the CRI server that composes them.
type node struct {
	images     *image.Store
	containers *container.Manager
	sandboxes  *sandbox.Manager
	filter     *netfilter.IPTables // the rules of the network and of the Service proxy
	policy     *policy.Engine      // nil for the runtime alone
	network    *network.Network
	cri        *cri.Server
	drivers    *csi.Plugin               // nil for the runtime alone
	admin      func(*http.ServeMux)      // adds to the admin socket; may be nil
	tell       func(reason, what string) // makes an Event of the Node; nil for the runtime alone. Set before the tasks run.
	closers    []func() error
	log        *slog.Logger
}

// newNode opens the stack. Everything that an earlier process left is taken over.
func newNode(ctx context.Context, o *options, log *slog.Logger) (n *node, err error) {
	systemd, err := o.node.Runtime.systemdCgroups()
	if err != nil {
		return nil, err
	}
	n = &node{log: log}
	defer func(opened *node) {
		if err != nil {
			opened.close()
		}
	}(n)
	if err := passable(o.place.Data, o.place.agent()); err != nil {
		return nil, err
	}
	keeperPath, err := keeper(o.place)
	if err != nil {
		return nil, err
	}
	// Pods of user namespaces go through it to their root filesystems; what must be kept from them is deeper and has its own mode.
	if err := errors.Join(os.MkdirAll(o.place.agent(), 0o711), os.Chmod(o.place.agent(), 0o711)); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	if n.images, err = image.Open(image.Config{Root: o.place.images(), CertsDirs: o.place.certs(), Policy: o.place.policy(), Log: log.With("part", "image")}); err != nil {
		return nil, fmt.Errorf("open the image store: %w", err)
	}
	n.closers = append(n.closers, n.images.Close)
	if err := cri.LabelImages(o.place.images()); err != nil {
		log.Warn("where SELinux is enforcing, containers cannot read their images", "err", err)
	}
	run := filepath.Join(o.place.Run, "runtime")
	n.containers, err = container.Open(container.ManagerConfig{StateDir: filepath.Join(run, "containers"),
		DataDir: filepath.Join(o.place.agent(), "containers"), KeeperPath: keeperPath, Systemd: systemd, Log: log.With("part", "runtime")})
	if err != nil {
		return nil, fmt.Errorf("open the runtime: %w", err)
	}
	n.closers = append(n.closers, n.containers.Close)
	if n.sandboxes, err = sandbox.New(sandbox.ManagerConfig{StateDir: filepath.Join(run, "sandboxes"), KeeperPath: keeperPath, Systemd: systemd, Log: log.With("part", "runtime")}); err != nil {
		return nil, fmt.Errorf("open the sandboxes: %w", err)
	}
	n.filter = netfilter.NewIPTables(netfilter.Config{Prefix: chainPrefix(o.node.Bridge), Log: log.With("part", "network"),
		Repaired: func() { n.repaired("packet filter rules") }})
	var guard network.Guard
	if o.plane.ServiceCIDR != "" {
		if n.policy, err = newPolicy(o, n.filter, log); err != nil {
			return nil, err
		}
		guard = n.policy
	}
	if n.network, err = openNetwork(o, n.filter, guard, n.repaired, log); err != nil {
		return nil, fmt.Errorf("open the network: %w", err)
	}
	n.closers = append(n.closers, n.network.Close)
	criConfig, err := o.criConfig(log)
	if err != nil {
		return nil, err
	}
	criConfig.Systemd = systemd
	n.cri, err = cri.New(criConfig,
		cri.Deps{Images: n.images, Rootfs: n.images, Containers: n.containers, Sandboxes: n.sandboxes, Network: n.network, ResolveUser: image.ResolveUser})
	if err != nil {
		return nil, fmt.Errorf("open the CRI server: %w", err)
	}
	n.closers = append(n.closers, n.cri.Close)
	return n, loadHello(ctx, n.images)
}

// ownPods is the cgroup below --cgroup-root of pods that name none: no kubelet's.
const ownPods = "keelson"

func (o *options) criConfig(log *slog.Logger) (cri.Config, error) {
	r := o.node.Runtime
	cfg := cri.Config{RunDir: filepath.Join(o.place.Run, "cri"), Version: version[1:], CgroupParent: path.Join(o.node.CgroupRoot, ownPods),
		StreamAddr: r.StreamAddress, CDIDirs: r.CDIDirs, SELinux: r.SELinux, IgnoreSELinux: r.IgnoreSELinux,
		NRI: nri.Config{Socket: r.NRISocket, Plugins: r.NRIPlugins, PluginConfigs: r.NRIConfigs}, Log: log.With("part", "cri")}
	if r.StreamCert == "" && r.StreamKey == "" {
		return cfg, nil
	}
	pair, err := tls.LoadX509KeyPair(r.StreamCert, r.StreamKey)
	if err != nil {
		return cfg, fmt.Errorf("--stream-cert and --stream-key: %w", err)
	}
	cfg.StreamTLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	return cfg, nil
}

// passable makes directories that anybody may pass through and nobody but root may list: the root of a pod in a user namespace is an ordinary
// user to the node, and finds its root file system below them. What is secret has a mode of its own.
func passable(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
		if err := os.Chmod(dir, 0o711); err != nil {
			return err
		}
	}
	return nil
}

func openNetwork(o *options, filter *netfilter.IPTables, guard network.Guard, repaired func(string), log *slog.Logger) (*network.Network, error) {
	pods, err := netip.ParsePrefix(o.node.PodCIDR)
	if err != nil {
		return nil, fmt.Errorf("--pod-cidr: %w", err)
	}
	cluster, err := netip.ParsePrefix(o.node.ClusterCIDR)
	if err != nil {
		return nil, fmt.Errorf("--cluster-cidr: %w", err)
	}
	var dns netip.Addr // the runtime alone has no Services
	if o.plane.DNS != "" {
		if dns, err = netip.ParseAddr(o.plane.DNS); err != nil {
			return nil, fmt.Errorf("--cluster-dns: %w", err)
		}
	}
	var reserved []uint16
	if o.plane.Port != 0 {
		reserved = []uint16{uint16(o.plane.Port), uint16(o.node.KubeletPort)}
	}
	return network.New(network.Config{DNS: dns, Reserved: reserved, Guard: guard, Repaired: repaired, Spares: spareLinks, Bridge: o.node.Bridge, PodCIDR: pods, ClusterCIDR: cluster, StateDir: filepath.Join(o.place.agent(), "network"),
		RunDir: filepath.Join(o.place.Run, "network"), Filter: filter, Log: log.With("part", "network")})
}

// removeNetwork removes the bridge, the rules and every pod's network.
func removeNetwork(ctx context.Context, o *options) error {
	log, err := o.logging.logger()
	if err != nil {
		return err
	}
	n, err := openNetwork(o, netfilter.NewIPTables(netfilter.Config{Prefix: chainPrefix(o.node.Bridge)}), nil, nil, log)
	if err != nil {
		return err
	}
	return n.Uninstall(ctx)
}

// chainPrefix keeps two instances' packet filter chains apart: KEELSON, or seven characters made from the bridge's name.
func chainPrefix(bridge string) string {
	if bridge == "keelson0" {
		return "KEELSON"
	}
	h := fnv.New32a()
	fmt.Fprint(h, bridge)
	return fmt.Sprintf("K%06X", h.Sum32()&0xffffff)
}

// repaired tells that others had removed something of the node's, which is back.
func (n *node) repaired(what string) {
	if n.tell != nil {
		n.tell("NetworkRepaired", "Somebody removed what pods need of this node; keelson has put it back: "+what)
	}
}

// tasks serve the node's sockets.
func (n *node) tasks(o *options) []task {
	return []task{
		{"CRI server", func(ctx context.Context) error {
			l, err := listenUnix(o.place.socket(), 0o660)
			if err != nil {
				return err
			}
			return n.cri.Serve(ctx, l)
		}},
		{"rule repair", n.filter.Watch},
		{"network repair", n.network.Watch},
		{"image folder", func(ctx context.Context) error {
			// Beside the serving: a large archive or a slow registry holds up nobody, and a bad one stops nothing.
			images, err := n.images.ImportFolder(ctx, o.place.images())
			if err != nil && ctx.Err() == nil {
				n.log.Error("not every file of the image folder could be loaded", "folder", o.place.images(), "err", err)
			}
			if len(images) > 0 {
				n.log.Info("images loaded from the folder", "folder", o.place.images(), "images", len(images))
			}
			return nil
		}},
		{"admin socket", func(ctx context.Context) error {
			l, err := listenUnix(o.place.admin(), 0o600)
			if err != nil {
				return err
			}
			server := &http.Server{Handler: adminHandler(n.images, n.admin)}
			stop := context.AfterFunc(ctx, func() { server.Close() })
			defer stop()
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		}},
	}
}

// close ends the parts, the last opened first. Pods go on.
func (n *node) close() {
	for i := len(n.closers) - 1; i >= 0; i-- {
		if err := n.closers[i](); err != nil {
			n.log.Warn("closing a part of the node", "err", err)
		}
	}
}

func criCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "cri", Short: "Run the container runtime alone, on a CRI socket for any kubelet", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			profiles()
			log, err := o.logging.logger()
			if err != nil {
				return err
			}
			libraryLogs(cmd.Context(), log)
			o.told.log(log)
			o.plane = planeOptions{} // the other commands' flags have left their defaults: here are no Services
			i, err := claim(o)
			if err != nil {
				return err
			}
			defer i.release()
			if err := limits(log); err != nil {
				return err
			}
			n, err := newNode(cmd.Context(), o, log)
			if err != nil {
				return err
			}
			defer n.close()
			group, ctx := errgroup.WithContext(cmd.Context())
			together(ctx, group, n.tasks(o)...)
			together(ctx, group, task{"settling", func(ctx context.Context) error { return settle(ctx, log) }})
			log.Info("the runtime is ready", "socket", o.place.socket())
			return group.Wait()
		},
	}
	o.nodeFlags(cmd)
	return cmd
}
