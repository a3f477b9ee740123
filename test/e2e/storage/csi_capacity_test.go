package storage

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestCSI_Capacity: what a driver has left is published for its class, keeps a pod waiting whose claim asks for more, with words that say so, lets it go
// when there is room, and goes with the driver.
func TestCSI_Capacity(t *testing.T) {
	c := cluster(t)
	data := filepath.Join(c.Dir, "csi", "capacity.csi.test")
	d := installDriver(t, c, "capacity.csi.test", `{attachRequired: false, storageCapacity: true}`)
	room := func(bytes int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(data, "room"), []byte(strconv.Itoa(bytes)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	told := func(want string) {
		t.Helper()
		eventually(t, "the driver's capacity is published", func() string {
			out, errs, _ := c.Kubectl(t.Context(), "get", "csistoragecapacities", "-n", "kube-system", "-l", "csi.storage.k8s.io/drivername="+d.name,
				"-o", `jsonpath={range .items[*]}{.storageClassName} {.capacity} {.nodeTopology.matchLabels} {.metadata.ownerReferences[0].name}{end}`)
			if strings.TrimSpace(out) != want {
				return out + errs
			}
			return ""
		})
	}
	topology := `{"topology.capacity.csi.test/node":"` + c.NodeName + `"} ` + d.name
	room(5 << 20)
	apply(t, c, csiClass("csi-room", d.name, ""))
	told("csi-room 5Mi " + topology)
	apply(t, c, claim("csi-room", ", storageClassName: csi-room")+user("csi-roomy", "csi-room", "true"))
	eventually(t, "the pod is told what it waits for", func() string {
		out, errs, _ := c.Kubectl(t.Context(), "get", "pod", "csi-roomy", "-o", "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}")
		if !strings.Contains(out, "node(s) did not have enough free storage") {
			return out + errs
		}
		return ""
	})
	// A volume that comes has the driver asked again.
	room(1 << 30)
	apply(t, c, csiVolume("room-by-hand", d.name, ""))
	told("csi-room 1Gi " + topology)
	waitPod(t, c, "csi-roomy", "condition=Ready")
	kubectl(t, c, "delete", "pod", "csi-roomy", "--now")
	kubectl(t, c, "delete", "pvc", "csi-room")
	kubectl(t, c, "delete", "pv", "room-by-hand")
	kubectl(t, c, "delete", "csidriver", d.name)
	told("")
	kubectl(t, c, "delete", "daemonset", d.name)
}

// TestCSI_Limit: the driver takes three volumes of a node; the pod with a fourth waits until one has gone.
func TestCSI_Limit(t *testing.T) {
	c := cluster(t)
	d := installDriver(t, c, "limit.csi.test", `{attachRequired: true}`)
	var objects strings.Builder
	for _, name := range []string{"limit-1", "limit-2", "limit-3"} {
		d.madeByHand(t, name)
		objects.WriteString(csiVolume(name, d.name, "") + claim(name, ", storageClassName: hand") + user(name, name, "true"))
	}
	apply(t, c, objects.String())
	for _, name := range []string{"limit-1", "limit-2", "limit-3"} {
		waitPod(t, c, name, "condition=Ready")
	}
	d.madeByHand(t, "limit-4")
	apply(t, c, csiVolume("limit-4", d.name, "")+claim("limit-4", ", storageClassName: hand")+user("limit-4", "limit-4", "true"))
	eventually(t, "the fourth pod is told", func() string {
		out, errs, _ := c.Kubectl(t.Context(), "get", "pod", "limit-4", "-o", "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}")
		if !strings.Contains(out, "node(s) exceed max volume count") {
			return out + errs
		}
		return ""
	})
	kubectl(t, c, "delete", "pod", "limit-1", "--now")
	waitPod(t, c, "limit-4", "condition=Ready")
	kubectl(t, c, "delete", "pod", "limit-2", "limit-3", "limit-4", "--now")
	kubectl(t, c, "delete", "daemonset", d.name)
}
