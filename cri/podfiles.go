package cri

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/podstore"
)

// The files that a pod's containers share.
const (
	resolvFile   = "resolv.conf"
	hostsFile    = "hosts"
	hostnameFile = "hostname"
)

// writePodFiles makes the files that are bound into the pod's containers.
func (s *Server) writePodFiles(rec *podstore.Sandbox) error {
	dir := s.podDir(rec.ID)
	// Containers of any user read these through a bind mount, which needs the
	// files' modes only; the directory stays root's.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("pod directory: %w", err)
	}
	resolv, err := resolvConf(rec.Config.GetDnsConfig())
	if err != nil {
		return err
	}
	hosts, err := hostsOf(rec)
	if err != nil {
		return err
	}
	for name, content := range map[string]string{
		resolvFile: resolv, hostsFile: hosts, hostnameFile: hostname(rec.Config) + "\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return fmt.Errorf("pod file: %w", err)
		}
		if ids := podNamespaces(rec.Config); userns(ids) {
			u := ids.GetUsernsOptions()
			if err := os.Chown(path, int(u.GetUids()[0].GetHostId()), int(u.GetGids()[0].GetHostId())); err != nil {
				return fmt.Errorf("pod file: %w", err)
			}
		}
	}
	return nil
}

// resolvConf is resolv.conf(5) for a DNS config; none means the node's.
func resolvConf(c *runtimeapi.DNSConfig) (string, error) {
	if c == nil || len(c.GetServers())+len(c.GetSearches())+len(c.GetOptions()) == 0 {
		b, err := os.ReadFile("/etc/resolv.conf")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("read the node's resolv.conf: %w", err)
		}
		return string(b), nil
	}
	var b strings.Builder
	if len(c.GetSearches()) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.GetSearches(), " "))
	}
	for _, server := range c.GetServers() {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	if len(c.GetOptions()) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(c.GetOptions(), " "))
	}
	return b.String(), nil
}

// hostsOf is for clients that bring no /etc/hosts; the kubelet mounts its own.
func hostsOf(rec *podstore.Sandbox) (string, error) {
	if hostNetwork(rec.Config) {
		b, err := os.ReadFile("/etc/hosts")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("read the node's hosts: %w", err)
		}
		return string(b), nil
	}
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, ip := range rec.IPs {
		if name := hostname(rec.Config); name != "" {
			fmt.Fprintf(&b, "%s\t%s\n", ip, name)
		}
	}
	return b.String(), nil
}
