package storage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab"
)

func csiClass(name, driver, more string) string {
	return `{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: ` + name + `}, provisioner: ` + driver + `, volumeBindingMode: WaitForFirstConsumer, allowVolumeExpansion: true` + more + `}` + "\n---\n"
}

// TestCSI_Dynamic: a class that names the driver has it make a volume where the pod goes; the volume is attached, used, moved to the next pod
// with its data, grown under it, detached, and deleted with its claim.
func TestCSI_Dynamic(t *testing.T) {
	c := cluster(t)
	d := installDriver(t, c, "dynamic.csi.test", `{attachRequired: true}`)
	apply(t, c, `{apiVersion: v1, kind: Secret, metadata: {name: csi-made}, stringData: {key: word}}`+"\n---\n"+
		csiClass("csi-made", d.name, `, parameters: {color: blue, csi.storage.k8s.io/provisioner-secret-name: "${pvc.name}", csi.storage.k8s.io/provisioner-secret-namespace: "${pvc.namespace}"}`)+
		claim("csi-made", ", storageClassName: csi-made")+user("csi-writes", "csi-made", "echo kept > /data/file"))
	waitPod(t, c, "csi-writes", "condition=Ready")
	pv := volumeOf(t, c, "csi-made")
	id := kubectl(t, c, "get", "pv", pv, "-o", "jsonpath={.spec.csi.volumeHandle}")
	made := d.calls(t, "CreateVolume", "")
	if len(made) == 0 || made[0].Request.Parameters["color"] != "blue" || len(made[0].Request.Parameters) != 1 || made[0].Request.Secrets["key"] != "word" {
		t.Errorf("the driver was asked %+v", made)
	}
	has(t, c, "pv/"+pv, ".spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key", "topology.dynamic.csi.test/node")
	attached := kubectl(t, c, "get", "volumeattachments", "-o", "jsonpath={.items[?(@.spec.source.persistentVolumeName=='"+pv+"')].status.attached}")
	if attached != "true" {
		t.Errorf("attached: %q", attached)
	}
	if staged := d.calls(t, "NodeStageVolume", id); len(staged) == 0 || staged[0].Request.PublishContext["attached-to"] != c.NodeName || staged[0].Request.VolumeContext["made-for"] != pv {
		t.Errorf("staged: %+v", staged)
	}
	kubectl(t, c, "delete", "pod", "csi-writes", "--now")
	eventually(t, "the volume is detached", func() string {
		out, errs, _ := c.Kubectl(t.Context(), "get", "volumeattachments", "-o", "jsonpath={.items[?(@.spec.source.persistentVolumeName=='"+pv+"')].metadata.name}")
		return out + errs
	})
	apply(t, c, user("csi-reads", "csi-made", "cat /data/file"))
	waitPod(t, c, "csi-reads", "condition=Ready")
	// More room, under the pod.
	kubectl(t, c, "patch", "pvc", "csi-made", "-p", `{"spec":{"resources":{"requests":{"storage":"20Mi"}}}}`)
	has(t, c, "pvc/csi-made", ".status.capacity.storage", "20Mi")
	if len(d.calls(t, "ControllerExpandVolume", id)) == 0 || len(d.calls(t, "NodeExpandVolume", id)) == 0 {
		t.Error("the driver was not asked for more room by controller and node")
	}
	measured(t, c, "csi-made", "inodes_used", "7") // the driver's own figure
	// A copy of it.
	apply(t, c, strings.Replace(claim("csi-copy", ", storageClassName: csi-made, dataSource: {kind: PersistentVolumeClaim, name: csi-made}"), "10Mi", "20Mi", 1)+
		`{apiVersion: v1, kind: Secret, metadata: {name: csi-copy}, stringData: {key: word}}`+"\n---\n"+user("csi-copies", "csi-copy", "grep kept /data/file"))
	waitPod(t, c, "csi-copies", "condition=Ready")
	kubectl(t, c, "delete", "pod", "csi-reads", "csi-copies", "--now")
	kubectl(t, c, "delete", "pvc", "csi-made", "csi-copy")
	gone(t, c, "pv/"+pv)
	if _, err := os.Stat(filepath.Join(d.data, "volumes", id)); !os.IsNotExist(err) {
		t.Errorf("the volume's data is still there: %v", err)
	}
}

// TestCSI_InlineAndBlock: a volume that lives with its pod, and one without a filesystem.
func TestCSI_InlineAndBlock(t *testing.T) {
	c := cluster(t)
	d := installDriver(t, c, "inline.csi.test", `{attachRequired: false, podInfoOnMount: true, volumeLifecycleModes: [Persistent, Ephemeral]}`)
	block := strings.NewReplacer("volumeMounts: [{name: v, mountPath: /data}]", "volumeDevices: [{name: v, devicePath: /dev/xv}]")
	apply(t, c, `{apiVersion: v1, kind: Pod, metadata: {name: csi-inline}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: a, image: "busybox:1.28", command: [sh, -c, "cat /data/hello && echo && exec sleep 3600"], `+
		`volumeMounts: [{name: v, mountPath: /data}]}], volumes: [{name: v, csi: {driver: `+d.name+`, volumeAttributes: {hello: world}}}]}}`+"\n---\n"+
		csiClass("csi-block", d.name, "")+claim("csi-block", ", storageClassName: csi-block, volumeMode: Block")+
		block.Replace(user("csi-device", "csi-block", "test -b /dev/xv && echo onto-the-device | dd of=/dev/xv bs=512 count=1 conv=sync && dd if=/dev/xv bs=15 count=1 | grep onto-the-device")))
	waitPod(t, c, "csi-inline", "condition=Ready")
	eventually(t, "the pod reads what its volume was made with", func() string {
		if out := kubectl(t, c, "logs", "csi-inline"); out != "world\n" {
			return "it read " + out
		}
		return ""
	})
	inline := d.calls(t, "NodePublishVolume", "")[0].Request
	waitPod(t, c, "csi-device", "condition=Ready")
	kubectl(t, c, "delete", "pod", "csi-inline", "csi-device", "--now")
	kubectl(t, c, "delete", "pvc", "csi-block")
	eventually(t, "nothing is left", func() string {
		left, err := os.ReadDir(filepath.Join(d.data, "volumes"))
		if err != nil {
			return err.Error()
		}
		if len(left) > 0 {
			return left[0].Name()
		}
		return ""
	})
	for _, one := range d.calls(t, "NodePublishVolume", inline.VolumeID) {
		if one.Request.VolumeContext["csi.storage.k8s.io/ephemeral"] != "true" {
			t.Errorf("the driver hears %v", one.Request.VolumeContext)
		}
	}
}

// TestCSI_HangingDriver: a driver that does not answer holds up its own pods alone, and when it answers again they go on.
func TestCSI_HangingDriver(t *testing.T) {
	c := cluster(t)
	d := installDriver(t, c, "hanging.csi.test", `{attachRequired: false}`)
	d.madeByHand(t, "hangs")
	off := d.fault(t, "hang")
	apply(t, c, csiVolume("hangs", d.name, "")+claim("hangs", ", storageClassName: hand")+user("csi-hangs", "hangs", "true"))
	eventually(t, "the driver is asked", func() string {
		if len(d.calls(t, "NodeStageVolume", "hangs")) == 0 {
			return "not yet"
		}
		return ""
	})
	apply(t, c, claim("beside", "")+user("csi-beside", "beside", "true"))
	waitPod(t, c, "csi-beside", "condition=Ready")
	measured(t, c, "beside", "inodes_used", "")
	kubectl(t, c, "delete", "pod", "csi-beside", "--now")
	kubectl(t, c, "delete", "pod", "csi-hangs", "--wait=false", "--now")
	off()
	gone(t, c, "pod/csi-hangs")
}

// measured waits until the node tells what is behind a claim, by metric and summary. An empty figure is any.
func measured(t *testing.T, c *lab.Cluster, claim, figure, want string) {
	t.Helper()
	node := "/api/v1/nodes/" + c.NodeName + "/proxy/"
	eventually(t, "claim "+claim+" is measured", func() string {
		page, errs, err := c.Kubectl(t.Context(), "get", "--raw", node+"metrics")
		if err != nil {
			return errs
		}
		if line := `kubelet_volume_stats_` + figure + `{namespace="default",persistentvolumeclaim="` + claim + `"} ` + want; !strings.Contains(page, line) {
			return "no " + line
		}
		page, errs, err = c.Kubectl(t.Context(), "get", "--raw", node+"stats/summary")
		if err != nil || !strings.Contains(strings.Join(strings.Fields(page), ""), `"pvcRef":{"name":"`+claim+`"`) {
			return "the summary does not name the claim: " + errs
		}
		return ""
	})
}
