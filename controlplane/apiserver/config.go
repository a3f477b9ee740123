package apiserver

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// Config of a Server. Zero values mean the defaults that are named.
type Config struct {
	// DataDir holds the database and the PKI; required. One server per directory.
	DataDir string
	// BindAddress and Port to serve on: 0.0.0.0 and 6443. Port -1 chooses a free one.
	BindAddress netip.Addr
	Port        int
	// AdvertiseAddress is where others reach this server: in the kubernetes Service and in certificates. Default: the
	// address of the interface with the default route, or the loopback address if there is none.
	AdvertiseAddress netip.Addr
	// ServiceCIDRs are the ranges of Service addresses: 10.96.0.0/12 alone, or one of each family, that of Services that ask
	// for none in particular first. The first address of the first is the API's own.
	ServiceCIDRs []netip.Prefix
	// NodePorts is the range of node ports: 30000-32767.
	NodePorts utilnet.PortRange
	// ClusterDomain: cluster.local.
	ClusterDomain string
	// NodeName of the machine that the server runs on; in certificates. Optional.
	NodeName string
	// ExtraSANs are further names and addresses in the serving certificate.
	ExtraSANs []string
	// KubeletPort is where the API server reaches kubelets that do not say otherwise: 10250.
	KubeletPort int
	// AuditPolicy is a file of kind Policy (audit.k8s.io/v1) in place of the built-in one, which records the metadata of
	// writes, of streams into pods, and of reads of Secrets. The log is DataDir/audit/audit.log.
	AuditPolicy string
	// AuthenticationConfig is a file of kind AuthenticationConfiguration (apiserver.config.k8s.io/v1) with the OpenID
	// Connect issuers whose tokens are believed; empty: none are. It is followed: a change counts within seconds.
	AuthenticationConfig string
	// History is how long lists go on where they were begun (store.Config); 0: 5 minutes.
	History time.Duration
}

// Deps of a Server.
type Deps struct {
	Log *slog.Logger // required
}

func (c Config) complete() (Config, error) {
	if c.DataDir == "" {
		return c, errors.New("apiserver: DataDir is not set")
	}
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return c, err
	}
	c.DataDir = dir
	if !c.BindAddress.IsValid() {
		c.BindAddress = netip.IPv4Unspecified()
	}
	switch c.Port {
	case 0:
		c.Port = 6443
	case -1:
		c.Port = 0
	}
	if !c.AdvertiseAddress.IsValid() {
		c.AdvertiseAddress = defaultAddress(c.BindAddress)
	}
	if len(c.ServiceCIDRs) == 0 {
		c.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}
	}
	if err := c.checkServiceCIDRs(); err != nil {
		return c, err
	}
	if c.NodePorts.Size == 0 {
		c.NodePorts = utilnet.PortRange{Base: 30000, Size: 2768}
	}
	if c.ClusterDomain == "" {
		c.ClusterDomain = "cluster.local"
	}
	if c.KubeletPort == 0 {
		c.KubeletPort = 10250
	}
	return c, nil
}

// checkServiceCIDRs brings the ranges to their canonical form.
func (c *Config) checkServiceCIDRs() error {
	c.ServiceCIDRs = slices.Clone(c.ServiceCIDRs)
	for i, p := range c.ServiceCIDRs {
		if c.ServiceCIDRs[i] = p.Masked(); p.Addr().BitLen()-p.Bits() < 3 {
			return fmt.Errorf("service CIDR %s is too small: it needs at least 8 addresses", p)
		}
	}
	if n := len(c.ServiceCIDRs); n > 2 || n == 2 && c.ServiceCIDRs[0].Addr().Is4() == c.ServiceCIDRs[1].Addr().Is4() {
		return fmt.Errorf("service CIDRs %v: one, or one of IPv4 and one of IPv6", c.ServiceCIDRs)
	}
	return nil
}

// serviceIP is the address of the kubernetes Service.
func (c Config) serviceIP() netip.Addr { return c.ServiceCIDRs[0].Addr().Next() }

func defaultAddress(bind netip.Addr) netip.Addr {
	if !bind.IsUnspecified() {
		return bind
	}
	if ip, err := utilnet.ChooseHostInterface(); err == nil {
		if a, ok := netip.AddrFromSlice(ip); ok {
			return a.Unmap()
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

func ipNets(prefixes []netip.Prefix) (out []*net.IPNet) {
	for _, p := range prefixes {
		out = append(out, &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	return out
}
