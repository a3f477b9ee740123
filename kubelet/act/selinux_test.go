package act

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"

	"keelson.dev/keelson/kubelet/plan"
)

// A host with SELinux has the options, the container's own before the pod's; any other gets none and the pod is told so.
func TestSELinux(t *testing.T) {
	p := testPod()
	p.Spec.SecurityContext = &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: "s0:c1,c2"}}
	own := testPod()
	own.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Type: "spc_t"}}
	empty := testPod()
	empty.Spec.SecurityContext = &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{}}
	for _, c := range []struct {
		pod             *corev1.Pod
		box, ctr, event string
	}{{p, "s0:c1,c2", "s0:c1,c2", "SELinuxNotSupported"}, {own, "", "spc_t", "SELinuxNotSupported"}, {empty, "", "", ""}, {testPod(), "", "", ""}} {
		for _, on := range []bool{true, false} {
			e := executor(t)
			e.cfg.SELinux = on
			box := e.sandboxSecurity(c.pod).GetSelinuxOptions()
			ctr := e.containerSecurity(c.pod, &c.pod.Spec.Containers[0], nil, "").GetSelinuxOptions()
			e.tellSELinux(c.pod)
			event := ""
			select {
			case event = <-e.Events.(*record.FakeRecorder).Events:
			default:
			}
			if !on {
				if box != nil || ctr != nil || !strings.Contains(event, c.event) || (event == "") != (c.event == "") {
					t.Errorf("off: sandbox %v, container %v, event %q; want %q", box, ctr, event, c.event)
				}
			} else if box.GetType()+box.GetLevel() != c.box || ctr.GetType()+ctr.GetLevel() != c.ctr || event != "" {
				t.Errorf("on: sandbox %v, container %v, event %q; want %q and %q", box, ctr, event, c.box, c.ctr)
			}
		}
	}
}

// An ephemeral container comes when its pod's sandbox has long been told of, so it is told of by itself.
func TestSELinuxOfEphemeral(t *testing.T) {
	own := &corev1.Container{Name: "debug", SecurityContext: &corev1.SecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Type: "spc_t"}}}
	for _, c := range []struct {
		kind plan.Kind
		c    *corev1.Container
		on   bool
		want bool
	}{{plan.Ephemeral, own, false, true}, {plan.Ephemeral, own, true, false}, {plan.App, own, false, false}, {plan.Ephemeral, &corev1.Container{Name: "debug"}, false, false}} {
		e := executor(t)
		e.cfg.SELinux = c.on
		e.tellSELinuxOf(Target{Pod: testPod(), Kind: c.kind}, c.c)
		event := ""
		select {
		case event = <-e.Events.(*record.FakeRecorder).Events:
		default:
		}
		if strings.Contains(event, "SELinuxNotSupported") != c.want {
			t.Errorf("%v, SELinux %t: event %q", c.kind, c.on, event)
		}
	}
}
