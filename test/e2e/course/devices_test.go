package course

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"keelson.dev/keelson/kubelet/device/devicetest"
)

// TestDevicePlugin: a device plugin's devices are scheduled, given to one container each, usable in it, and still its own
// after kill -9 of the server.
func TestDevicePlugin(t *testing.T) {
	s := attend(t)
	const resource = "example.com/toy"
	start := func() *devicetest.Plugin {
		t.Helper()
		p := &devicetest.Plugin{Dir: filepath.Join(s.c.Dir, "kubelet", "device-plugins"), Endpoint: "toy.sock", Resource: resource,
			Answer: func(ids []string) *api.ContainerAllocateResponse {
				return &api.ContainerAllocateResponse{Envs: map[string]string{"TOY": strings.Join(ids, ",")},
					Devices: []*api.DeviceSpec{{ContainerPath: "/dev/toy", HostPath: "/dev/zero", Permissions: "r"}}}
			}}
		if err := p.Start(t.Context(), devicetest.Healthy("t1", "t2")...); err != nil {
			t.Fatal(err)
		}
		return p
	}
	offered := func() string {
		n, err := s.client.CoreV1().Nodes().Get(t.Context(), s.c.NodeName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		q := n.Status.Allocatable[resource]
		if q.Value() != 2 {
			return fmt.Sprintf("the node offers %s", q.String())
		}
		return ""
	}
	plugin := start()
	defer func() { plugin.Stop() }()
	s.eventually("the node offers the devices", offered)
	ask := func(n string) string { return "resources: {limits: {" + resource + `: "` + n + `"}},` }
	s.apply(sleeper("one", "", ask("1")))
	s.until("one", "the first pod is ready", isReady)
	s.apply(sleeper("two", "", ask("2")))
	s.until("two", "the second is told what is short", func(p *corev1.Pod) string {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && strings.Contains(c.Message, resource) {
				return ""
			}
		}
		return fmt.Sprintf("%+v", p.Status)
	})
	look := func() string {
		return s.kubectl("exec", "one", "--", "sh", "-c", "echo $TOY; head -c 3 /dev/toy | od -An -tx1")
	}
	before := look()
	if f := strings.Fields(before); len(f) != 4 || !strings.HasPrefix(f[0], "t") || f[1] != "00" {
		t.Errorf("the container sees %q", before)
	}
	s.kill()
	plugin.Stop()
	plugin = start()
	s.eventually("the node offers the devices again", offered)
	if after := look(); after != before {
		t.Errorf("after the kill the container sees %q, before %q", after, before)
	}
	unharmed(t, []corev1.Pod{*s.pod("one")})
	s.kubectl("delete", "pod", "one")
	s.until("two", "the second gets both", isReady)
	if got := s.kubectl("exec", "two", "--", "sh", "-c", "echo $TOY"); strings.TrimSpace(got) != "t1,t2" {
		t.Errorf("the second has %q", got)
	}
}
