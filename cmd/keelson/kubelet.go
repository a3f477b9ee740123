package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/controlplane/auth"
	"keelson.dev/keelson/kubelet"
	"keelson.dev/keelson/kubelet/pluginwatch"
	"keelson.dev/keelson/network"
)

const controlPlaneRole = "node-role.kubernetes.io/control-plane"

// markControlPlane gives the node its role: a label that a node may not give itself.
func markControlPlane(ctx context.Context, client kubernetes.Interface, node string) error {
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:""}}}`, controlPlaneRole)
	_, err := client.CoreV1().Nodes().Patch(ctx, node, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}

// kubelet makes the kubelet of this node: a client like any other, under the node's own identity.
func (n *node) kubelet(o *options, p *plane, log *slog.Logger) (*kubelet.Kubelet, error) {
	client, err := kubernetes.NewForConfig(p.server.ClientConfig(auth.NodeUser(o.node.Name)))
	if err != nil {
		return nil, err
	}
	ip, err := netip.ParseAddr(o.node.IP)
	if err != nil {
		return nil, fmt.Errorf("--node-ip: %w", err)
	}
	dns, err := netip.ParseAddr(o.plane.DNS)
	if err != nil {
		return nil, fmt.Errorf("--cluster-dns: %w", err)
	}
	pair, err := p.server.PKI().CA.Issue(auth.Leaf{CommonName: "system:node:" + o.node.Name, Organizations: []string{"system:nodes"},
		DNSNames: []string{o.node.Name}, IPs: []net.IP{ip.AsSlice()}, Server: true})
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return nil, err
	}
	health := ""
	if o.node.HealthzPort != 0 {
		health = net.JoinHostPort("127.0.0.1", strconv.Itoa(o.node.HealthzPort))
	}
	var taints []corev1.Taint
	if o.plane.Taint {
		taints = append(taints, corev1.Taint{Key: controlPlaneRole, Effect: corev1.TaintEffectNoSchedule})
	}
	systemd, err := o.node.Runtime.systemdCgroups()
	if err != nil {
		return nil, err
	}
	critical := o.node.ShutdownCritical
	if critical == 0 {
		critical = o.node.Shutdown / 3
	}
	if err := shareVolumes(o, log); err != nil {
		return nil, err
	}
	volumes, drivers := newVolumes(o, client, log)
	k, err := kubelet.New(kubelet.Config{
		Shutdown: kubelet.Shutdown{Off: o.node.Shutdown < 0, Grace: o.node.Shutdown, Critical: critical},
		Node: kubelet.Node{Name: o.node.Name, IPs: []netip.Addr{ip}, Taints: taints,
			PodCIDRs: []string{o.node.PodCIDR}, MaxPods: o.node.MaxPods, SingleProcessOOMKill: o.node.SingleOOM, Version: version},
		Paths: kubelet.Paths{Root: o.place.KubeletRoot, PodLogs: o.place.PodLogs, Manifests: o.node.StaticPods, ResolvConf: o.node.ResolvConf},
		Server: kubelet.Server{Addr: net.JoinHostPort("0.0.0.0", strconv.Itoa(o.node.KubeletPort)), HealthAddr: health,
			TLS: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}, ClientCA: p.server.PKI().CA.PEM},
		CRIEndpoint: "unix://" + o.place.socket(), ClusterDNS: []netip.Addr{dns}, ClusterDomain: o.plane.Domain, CgroupRoot: o.node.CgroupRoot, SystemdCgroups: systemd,
		ProbeMark: network.HostMark,
	}, kubelet.Deps{Client: client, Volumes: mounts{volumes}, Measure: volumes.Measure, Plugins: map[string]pluginwatch.Handler{pluginwatch.CSI: drivers},
		InUse: drivers.InUse, Log: log.With("part", "kubelet")})
	if err == nil {
		drivers.OnUse(func() { k.Recheck() })
		n.drivers = drivers
	}
	return k, err
}
