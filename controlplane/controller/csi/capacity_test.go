package csi

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/controlplane/controller"
)

func wrapped(n int64) *wrapperspb.Int64Value { return wrapperspb.Int64(n) }

// published is what the API tells of capacities: "class node bytes most", sorted.
func published(t *testing.T, client kubernetes.Interface) []string {
	t.Helper()
	list, err := client.StorageV1().CSIStorageCapacities("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, c := range list.Items {
		line := fmt.Sprintf("%s %s %d", c.StorageClassName, c.NodeTopology.MatchLabels["node"], c.Capacity.Value())
		if c.MaximumVolumeSize != nil {
			line += fmt.Sprintf(" %d", c.MaximumVolumeSize.Value())
		}
		if c.Namespace != "kube-system" || len(c.OwnerReferences) != 1 || c.OwnerReferences[0].UID != "driver" || c.Labels[driverLabel] != driverName {
			t.Errorf("%s/%s: owners %v, labels %v", c.Namespace, c.Name, c.OwnerReferences, c.Labels)
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

func becomes(t *testing.T, client kubernetes.Interface, want ...string) {
	t.Helper()
	var got []string
	defer func() {
		if t.Failed() {
			t.Logf("published: %s", strings.Join(got, ", "))
		}
	}()
	eventually(t, "published "+strings.Join(want, ", "), func() bool { got = published(t, client); return slices.Equal(got, want) })
}

// capacities publishes when something happened, and only then.
var capacities = []func(controller.Deps, Drivers) (*controller.Loop, error){func(d controller.Deps, drivers Drivers) (*controller.Loop, error) {
	return publishes(d, drivers, 24*time.Hour)
}}

// TestCapacity: each class that waits has an object for each part of the cluster; figures follow volumes, and objects follow classes,
// nodes and the driver's wish.
func TestCapacity(t *testing.T) {
	m := start(t)
	m.room = map[string]int64{"a": 100, "b": 200}
	objects := append(on("a", "node"), on("b", "node")...)
	objects = append(objects, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "without"}}, driverObject(true), class("fast", true), class("now", false))
	client, _ := run(t, m, capacities, objects...)
	becomes(t, client, "fast a 100", "fast b 200")

	// The first volume may meet looks that the new objects brought; the second one's are its own.
	for i, room := range []int64{90, 40} {
		m.set(func() { m.room["a"], m.most = room, 30 })
		pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("pv-", i)}, Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driverName, VolumeHandle: "h"}}}}
		if _, err := client.CoreV1().PersistentVolumes().Create(t.Context(), pv, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		becomes(t, client, fmt.Sprintf("fast a %d 30", room), "fast b 200 30")
	}

	if _, err := client.StorageV1().StorageClasses().Create(t.Context(), class("slow", true), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes(t, client, "fast a 40 30", "fast b 200 30", "slow a 40 30", "slow b 200 30")
	if err := client.StorageV1().StorageClasses().Delete(t.Context(), "fast", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.StorageV1().CSINodes().Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes(t, client, "slow a 40 30")

	// What somebody deleted comes again; what another publishes is left alone.
	if err := client.StorageV1().CSIStorageCapacities("kube-system").Delete(t.Context(), capacityName(driverName, "slow", map[string]string{"node": "a"}), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes(t, client, "slow a 40 30")
	if _, err := client.StorageV1().CSIDrivers().Update(t.Context(), driverObject(false), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes(t, client)
}

// TestCapacity_Silent: a driver that refuses, cannot tell, or is away changes nothing that is known; when it is back it is asked again.
func TestCapacity_Silent(t *testing.T) {
	m := start(t)
	m.room[""] = 7
	m.refuse["GetCapacity"] = errors.New("busy")
	client, _ := run(t, m, capacities, append(on("a"), driverObject(true), class("fast", true))...)
	eventually(t, "the driver is asked", func() bool { return m.count("GetCapacity") > 1 })
	if got := published(t, client); len(got) != 0 {
		t.Errorf("published %v", got)
	}
	m.set(func() { delete(m.refuse, "GetCapacity") })
	becomes(t, client, "fast  7")
	m.set(func() { m.room[""] = 3 })
	m.comes(false)
	m.comes(true)
	becomes(t, client, "fast  3")
	m.set(func() {
		m.can = []spec.ControllerServiceCapability_RPC_Type{spec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}
	})
	m.comes(true)
	becomes(t, client)
}
