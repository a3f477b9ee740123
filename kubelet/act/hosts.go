package act

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// hostname is what the pod calls itself and, with a subdomain, its fully qualified name.
func (e *Executor) hostname(pod *corev1.Pod) (name, fqdn string, err error) {
	if pod.Spec.HostnameOverride != nil {
		return *pod.Spec.HostnameOverride, "", nil
	}
	if pod.Spec.HostNetwork {
		return e.cfg.Hostname, "", nil
	}
	name = pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	if len(name) > 63 { // the kernel's limit less one; cut as upstream does
		name = strings.TrimRight(name[:63], "-.")
	}
	if name == "" {
		return "", "", fmt.Errorf("pod name %q leaves no host name", pod.Name)
	}
	if pod.Spec.Subdomain != "" {
		fqdn = name + "." + pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + e.cfg.DNS.Domain
	}
	if as := pod.Spec.SetHostnameAsFQDN; as != nil && *as && fqdn != "" {
		if len(fqdn) > 64 {
			return "", "", fmt.Errorf("setHostnameAsFQDN: %q is longer than the 64 characters that the kernel takes", fqdn)
		}
		name = fqdn
	}
	return name, fqdn, nil
}

// writeHosts writes the pod's /etc/hosts and returns its path. It is written anew for each container, because a
// new sandbox has another address. Ownership: the file is the kubelet's; containers may scribble in it.
func (e *Executor) writeHosts(pod *corev1.Pod, ips []string) (string, error) {
	path := filepath.Join(e.PodDir(pod.UID), "etc-hosts")
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		host, err := os.ReadFile("/etc/hosts")
		if err != nil && !os.IsNotExist(err) {
			return "", fmt.Errorf("read the node's hosts file: %w", err)
		}
		b.Write(host)
	} else {
		name, fqdn, err := e.hostname(pod)
		if err != nil {
			return "", err
		}
		b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		for _, ip := range ips {
			line := ip + "\t"
			if fqdn != "" {
				line += fqdn + "\t"
			}
			b.WriteString(line + strings.SplitN(name, ".", 2)[0] + "\n")
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			b.WriteString(a.IP + "\t" + strings.Join(a.Hostnames, "\t") + "\n")
		}
	}
	// Written in place, not renamed: running containers have this very file mounted.
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		return "", fmt.Errorf("write hosts file of pod %s: %w", pod.UID, err)
	}
	return path, nil
}
