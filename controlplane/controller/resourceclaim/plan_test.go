package resourceclaim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// podOf has the entries "name=template" or "name=:claim", and the statuses "name=claim" ("name=-": it needs none).
func podOf(entries, statuses string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "p"}}
	for _, e := range strings.Fields(entries) {
		name, of, _ := strings.Cut(e, "=")
		if claim, ok := strings.CutPrefix(of, ":"); ok {
			p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: name, ResourceClaimName: &claim})
		} else {
			p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: name, ResourceClaimTemplateName: &of})
		}
	}
	for _, s := range strings.Fields(statuses) {
		name, claim, _ := strings.Cut(s, "=")
		status := corev1.PodResourceClaimStatus{Name: name}
		if claim != "-" {
			status.ResourceClaimName = &claim
		}
		p.Status.ResourceClaimStatuses = append(p.Status.ResourceClaimStatuses, status)
	}
	if change != nil {
		change(p)
	}
	return p
}

func onNode(p *corev1.Pod) { p.Spec.NodeName = "n" }

// claimOf is of a pod's entry if that is not empty, reserved for the users.
func claimOf(name string, by types.UID, entry string, allocated bool, users ...string) *resourcev1.ResourceClaim {
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)}}
	if entry != "" {
		c.Annotations = map[string]string{entryAnnotation: entry}
		c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: by, Controller: ptr.To(true)}}
	}
	if allocated {
		c.Finalizers = []string{"mine", resourcev1.Finalizer}
		c.Status.Allocation = &resourcev1.AllocationResult{}
	}
	for _, u := range users {
		c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: u, UID: types.UID(u)})
	}
	return c
}

func TestDecidePod(t *testing.T) {
	for _, c := range []struct {
		what   string
		pod    *corev1.Pod
		claims []*resourcev1.ResourceClaim
		want   string
	}{
		{"a new one", podOf("gpu=t nic=t", "", nil), nil, "create p-gpu- p-nic-"},
		{"one that was made and not recorded", podOf("gpu=t nic=t", "", nil), []*resourcev1.ResourceClaim{claimOf("p-gpu-x", "p", "gpu", false)}, "create p-nic-; record gpu=p-gpu-x"},
		{"one of an earlier pod of that name", podOf("gpu=t", "", nil), []*resourcev1.ResourceClaim{claimOf("p-gpu-x", "old", "gpu", false)}, "create p-gpu-"},
		{"recorded", podOf("gpu=t", "gpu=p-gpu-x", nil), []*resourcev1.ResourceClaim{claimOf("p-gpu-x", "p", "gpu", false)}, ""},
		{"recorded, deleted by somebody", podOf("gpu=t", "gpu=p-gpu-x", nil), nil, "create p-gpu-"},
		{"recorded, another's by now", podOf("gpu=t", "gpu=p-gpu-x", nil), []*resourcev1.ResourceClaim{claimOf("p-gpu-x", "other", "gpu", false)}, "create p-gpu-"},
		{"recorded: it needs none", podOf("gpu=t", "gpu=-", nil), nil, ""},
		{"the user's own", podOf("gpu=:mine", "", nil), []*resourcev1.ResourceClaim{claimOf("mine", "", "", true)}, ""},
		{"the user's own, not there yet", podOf("gpu=:mine", "", nil), nil, ""},
		{"no such template", podOf("gpu=none nic=t", "", nil), nil, `create p-nic-; PodResourceClaim gpu: resource claim template "none": not found`},
		{"with a node, no scheduler saw it", podOf("gpu=:mine", "", onNode), []*resourcev1.ResourceClaim{claimOf("mine", "", "", true)}, "reserve mine"},
		{"with a node, reserved", podOf("gpu=:mine", "", onNode), []*resourcev1.ResourceClaim{claimOf("mine", "", "", true, "p")}, ""},
		{"with a node, nothing allocated", podOf("gpu=:mine", "", onNode), []*resourcev1.ResourceClaim{claimOf("mine", "", "", false)}, ""},
		{"with a node, too many have it", podOf("gpu=:mine", "", onNode), []*resourcev1.ResourceClaim{claimOf("mine", "", "", true, strings.Fields(strings.Repeat("q ", most))...)}, ""},
	} {
		w := world{
			claim: func(name string) *resourcev1.ResourceClaim {
				if i := slices.IndexFunc(c.claims, func(r *resourcev1.ResourceClaim) bool { return r.Name == name }); i >= 0 {
					return c.claims[i]
				}
				return nil
			},
			template: func(name string) *resourcev1.ResourceClaimTemplate {
				if name != "t" {
					return nil
				}
				return &resourcev1.ResourceClaimTemplate{}
			},
		}
		for _, r := range c.claims {
			if metav1.IsControlledBy(r, c.pod) {
				w.owned = append(w.owned, r)
			}
		}
		p := decidePod(c.pod, w)
		var parts []string
		add := func(what string, list []string) {
			if len(list) > 0 {
				parts = append(parts, what+" "+strings.Join(list, " "))
			}
		}
		var create, record, reserve []string
		for _, r := range p.create {
			create = append(create, r.GenerateName)
		}
		for entry, claim := range p.record {
			record = append(record, entry+"="+claim)
		}
		for _, r := range p.reserve {
			reserve = append(reserve, r.Name)
		}
		add("create", create)
		add("record", record)
		add("reserve", reserve)
		for _, err := range p.errs {
			parts = append(parts, err.Error())
		}
		if got := strings.Join(parts, "; "); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.what, got, c.want)
		}
	}
}

func TestMakeClaim(t *testing.T) {
	template := &resourcev1.ResourceClaimTemplate{Spec: resourcev1.ResourceClaimTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}},
		Spec:       resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r"}}}}}}
	c := makeClaim(podOf("", "", nil), "gpu", template)
	if c.Namespace != "ns" || c.Labels["a"] != "b" || c.Annotations["c"] != "d" || c.Annotations[entryAnnotation] != "gpu" || c.Spec.Devices.Requests[0].Name != "r" {
		t.Errorf("%+v", c)
	}
	if template.Spec.Annotations[entryAnnotation] != "" {
		t.Error("the template is changed")
	}
	long := makeClaim(podOf("", "", func(p *corev1.Pod) { p.Name = strings.Repeat("p", 100) }), strings.Repeat("e", 60), template)
	if n := len(long.GenerateName); n > 58 || !strings.Contains(long.GenerateName, "p-e") {
		t.Errorf("%d characters: %s", n, long.GenerateName)
	}
}

func TestDecideClaim(t *testing.T) {
	going := func(c *resourcev1.ResourceClaim) *resourcev1.ResourceClaim {
		c.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
		return c
	}
	ended := func(p *corev1.Pod) { onNode(p); p.Status.Phase = corev1.PodSucceeded }
	neverRan := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }
	for _, c := range []struct {
		what  string
		claim *resourcev1.ResourceClaim
		gone  string
		owner *corev1.Pod
		want  string
	}{
		{"in use", claimOf("c", "", "", true, "a", "b"), "", nil, ""},
		{"one user has ended", claimOf("c", "", "", true, "a", "b"), "a", nil, "reserved for b, allocated"},
		{"the last has ended", claimOf("c", "", "", true, "a", "b"), "a b", nil, "reserved for nobody; free"},
		{"allocated, not used yet", claimOf("c", "", "", true), "", nil, ""},
		{"deleted, in use", going(claimOf("c", "", "", true, "a")), "", nil, ""},
		{"deleted, allocated, never used", going(claimOf("c", "", "", true)), "", nil, "reserved for nobody; free"},
		{"deleted, others keep it", going(claimOf("c", "", "", false)), "", nil, ""},
		{"a pod's, which runs", claimOf("c", "p", "gpu", true, "p"), "", podOf("gpu=t", "", onNode), ""},
		{"a pod's, which is to run", claimOf("c", "p", "gpu", false), "", podOf("gpu=t", "", nil), ""},
		{"a pod's, which has ended", claimOf("c", "p", "gpu", true, "p"), "p", podOf("gpu=t", "", ended), "reserved for nobody; free; remove"},
		{"a pod's, which was deleted before it had a node", claimOf("c", "p", "gpu", false), "", podOf("gpu=t", "", neverRan), "remove"},
		{"an earlier pod's of that name", claimOf("c", "old", "gpu", false), "", podOf("gpu=t", "", nil), "remove"},
		{"a pod's that is not known", claimOf("c", "p", "gpu", false), "", nil, ""},
		{"a pod's, being removed", going(claimOf("c", "p", "gpu", false)), "", podOf("gpu=t", "", ended), ""},
	} {
		p := decideClaim(c.claim, func(r resourcev1.ResourceClaimConsumerReference) bool {
			return !slices.Contains(strings.Fields(c.gone), r.Name)
		}, c.owner)
		var parts []string
		if p.status != nil {
			users := "nobody"
			for i, r := range p.status.ReservedFor {
				if i == 0 {
					users = ""
				}
				users += r.Name
			}
			if p.status.Allocation != nil {
				users += ", allocated"
			}
			parts = append(parts, "reserved for "+users)
		}
		for what, is := range map[string]bool{"free": p.free, "remove": p.remove} {
			if is {
				parts = append(parts, what)
			}
		}
		slices.SortFunc(parts, func(a, b string) int { return rank(a) - rank(b) })
		if got := strings.Join(parts, "; "); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.what, got, c.want)
		}
	}
}

func rank(part string) int {
	return slices.IndexFunc([]string{"reserved", "free", "remove"}, func(s string) bool { return strings.HasPrefix(part, s) })
}

func TestKeys(t *testing.T) {
	p := podOf("gpu=t nic=:mine", "gpu=p-gpu-x", nil)
	if got := fmt.Sprint(podKeys(p)); got != "[claim:ns/p-gpu-x claim:ns/mine pod:ns/p]" {
		t.Error(got)
	}
	if got := podKeys(podOf("", "", nil)); got != nil {
		t.Errorf("a pod without claims: %v", got)
	}
}
