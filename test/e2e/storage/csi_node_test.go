package storage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCSI_ForceDetach: a volume that a node has in use which does not answer stays attached to it, until an administrator says that
// the node is out of service; then its pod goes, and the volume.
func TestCSI_ForceDetach(t *testing.T) {
	c := cluster(t)
	d := installDriver(t, c, "force.csi.test", `{attachRequired: true}`)
	d.madeByHand(t, "forced")
	// The driver calls the node that never answers by the name of the only machine that it knows.
	apply(t, c, `{apiVersion: v1, kind: Node, metadata: {name: silent}}`+"\n---\n"+
		`{apiVersion: storage.k8s.io/v1, kind: CSINode, metadata: {name: silent}, spec: {drivers: [{name: `+d.name+`, nodeID: `+c.NodeName+`, topologyKeys: []}]}}`)
	kubectl(t, c, "patch", "node", "silent", "--subresource=status", "--type=merge", "-p", `{"status":{"volumesInUse":["kubernetes.io/csi/`+d.name+`^forced"]}}`)
	apply(t, c, csiVolume("forced", d.name, "")+claim("forced", ", storageClassName: hand")+
		strings.Replace(user("csi-forced", "forced", "true"), "{terminationGracePeriodSeconds: 0", "{nodeName: silent, terminationGracePeriodSeconds: 30", 1))
	attached := func() string {
		out, errs, _ := c.Kubectl(t.Context(), "get", "volumeattachments", "-o", "jsonpath={.items[?(@.spec.source.persistentVolumeName=='forced')].status.attached}")
		return out + errs
	}
	eventually(t, "it is attached", func() string {
		if got := attached(); got != "true" {
			return "attached: " + got
		}
		return ""
	})
	kubectl(t, c, "delete", "pod", "csi-forced", "--wait=false")
	has(t, c, "pod/csi-forced", ".spec.nodeName", "silent") // nobody there ends it
	if got := attached(); got != "true" || len(d.calls(t, "ControllerUnpublishVolume", "forced")) > 0 {
		t.Errorf("the volume was taken from a node that has it in use: %s", got)
	}
	kubectl(t, c, "taint", "node", "silent", "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
	gone(t, c, "pod/csi-forced")
	eventually(t, "it is detached", attached)
	if len(d.calls(t, "ControllerUnpublishVolume", "forced")) == 0 {
		t.Error("the driver was not asked to detach it")
	}
}

// TestCSI_MountOptions: those of a volume, and those of a class, reach the driver in each call that has a use for them.
func TestCSI_MountOptions(t *testing.T) {
	c := cluster(t)
	d := installDriver(t, c, "options.csi.test", `{attachRequired: false}`)
	d.madeByHand(t, "with-options")
	apply(t, c, strings.Replace(csiVolume("with-options", d.name, ""), "csi: {", "mountOptions: [noatime, nodev], csi: {", 1)+claim("with-options", ", storageClassName: hand")+
		user("csi-options", "with-options", "cat /data/old")+
		csiClass("csi-options", d.name, ", mountOptions: [nosuid]")+claim("of-class", ", storageClassName: csi-options")+user("csi-of-class", "of-class", "true"))
	waitPod(t, c, "csi-options", "condition=Ready")
	waitPod(t, c, "csi-of-class", "condition=Ready")
	pv := volumeOf(t, c, "of-class")
	has(t, c, "pv/"+pv, ".spec.mountOptions", `["nosuid"]`)
	raw, err := os.ReadFile(filepath.Join(d.data, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ method, volume, flags string }{
		{"NodeStageVolume", "with-options", `"mount_flags":["noatime","nodev"]`},
		{"NodePublishVolume", "with-options", `"mount_flags":["noatime","nodev"]`},
		{"CreateVolume", pv, `"mount_flags":["nosuid"]`},
		{"NodeStageVolume", pv, `"mount_flags":["nosuid"]`},
		{"NodePublishVolume", pv, `"mount_flags":["nosuid"]`},
	} {
		found := false
		for line := range strings.Lines(string(raw)) {
			found = found || strings.Contains(line, `"method":"`+want.method+`"`) && strings.Contains(line, want.volume) && strings.Contains(line, want.flags)
		}
		if !found {
			t.Errorf("%s of %s does not say %s in\n%s", want.method, want.volume, want.flags, raw)
		}
	}
}

// TestReadWriteOncePod_Bypass: a pod that no scheduler has seen does not get a claim that one pod alone may use from another; when that
// has gone it does.
func TestReadWriteOncePod_Bypass(t *testing.T) {
	c := cluster(t)
	second := strings.Replace(user("once-second", "once", "cat /data/file"), "{terminationGracePeriodSeconds", "{nodeName: "+c.NodeName+", terminationGracePeriodSeconds", 1)
	apply(t, c, strings.Replace(claim("once", ""), "ReadWriteOnce", "ReadWriteOncePod", 1)+user("once-first", "once", "echo mine > /data/file"))
	waitPod(t, c, "once-first", "condition=Ready")
	apply(t, c, second)
	eventually(t, "the second pod is refused, with the reason", func() string {
		story := kubectl(t, c, "describe", "pod", "once-second")
		if !strings.Contains(story, "FailedMount") || !strings.Contains(story, "uses the ReadWriteOncePod access mode and is already in use by another pod") {
			return story
		}
		return ""
	})
	if got := kubectl(t, c, "get", "pod", "once-second", "-o", "jsonpath={.status.containerStatuses[0].started}"); got == "true" {
		t.Error("it runs nevertheless")
	}
	kubectl(t, c, "delete", "pod", "once-first", "--now")
	waitPod(t, c, "once-second", "condition=Ready")
}
