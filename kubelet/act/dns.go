package act

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// DNS says how names are resolved in pods.
type DNS struct {
	// Servers of the cluster's DNS; none makes ClusterFirst the same as Default.
	Servers []string
	// Domain of the cluster, "cluster.local".
	Domain string
	// ResolvConf is the node's own configuration, "/etc/resolv.conf"; "" for an empty one.
	ResolvConf string
}

// Limits of what resolv.conf may hold (man 5 resolv.conf; glibc since 2.26 takes more search domains).
const (
	maxServers      = 3
	maxSearches     = 32
	maxSearchLength = 2048
)

// For is the DNS configuration of one pod, by its policy (docs: DNS for Services and Pods).
func (d DNS) For(pod *corev1.Pod) (*runtimeapi.DNSConfig, error) {
	host, err := readResolvConf(d.ResolvConf)
	if err != nil {
		return nil, err
	}
	var out *runtimeapi.DNSConfig
	policy := pod.Spec.DNSPolicy
	cluster := policy == corev1.DNSClusterFirstWithHostNet || (policy == corev1.DNSClusterFirst || policy == "") && !pod.Spec.HostNetwork
	switch {
	case policy == corev1.DNSNone:
		out = &runtimeapi.DNSConfig{}
	case cluster && len(d.Servers) > 0:
		out = &runtimeapi.DNSConfig{Servers: slices.Clone(d.Servers), Options: []string{"ndots:5"}}
		if d.Domain != "" {
			out.Searches = []string{pod.Namespace + ".svc." + d.Domain, "svc." + d.Domain, d.Domain}
		}
		out.Searches = append(out.Searches, host.GetSearches()...)
	default:
		out = host
	}
	if c := pod.Spec.DNSConfig; c != nil {
		out.Servers = union(out.Servers, c.Nameservers)
		out.Searches = union(out.Searches, c.Searches)
		out.Options = mergeOptions(out.Options, c.Options)
	}
	limit(out)
	return out, nil
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

// mergeOptions lets the pod's options replace those of the same name.
func mergeOptions(have []string, want []corev1.PodDNSConfigOption) []string {
	for _, o := range want {
		s := o.Name
		if o.Value != nil && *o.Value != "" {
			s += ":" + *o.Value
		}
		have = slices.DeleteFunc(have, func(h string) bool {
			name, _, _ := strings.Cut(h, ":")
			return name == o.Name
		})
		have = append(have, s)
	}
	return have
}

func limit(c *runtimeapi.DNSConfig) {
	if len(c.Servers) > maxServers {
		c.Servers = c.Servers[:maxServers]
	}
	if len(c.Searches) > maxSearches {
		c.Searches = c.Searches[:maxSearches]
	}
	for len(strings.Join(c.Searches, " ")) > maxSearchLength {
		c.Searches = c.Searches[:len(c.Searches)-1]
	}
}

// readResolvConf reads the node's resolver configuration.
func readResolvConf(path string) (*runtimeapi.DNSConfig, error) {
	out := &runtimeapi.DNSConfig{}
	if path == "" {
		return out, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the node's resolver configuration: %w", err)
	}
	defer f.Close()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		words := strings.Fields(scan.Text())
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			out.Servers = append(out.Servers, words[1])
		case "search":
			out.Searches = nil // the last one wins
			for _, s := range words[1:] {
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}
				out.Searches = append(out.Searches, s)
			}
		case "options":
			out.Options = words[1:]
		}
	}
	return out, nil
}
