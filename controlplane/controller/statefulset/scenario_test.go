package statefulset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/controlplane/controller/owner"
	"keelson.dev/keelson/controlplane/scenario"
)

// story is a StatefulSet db and its pods. Commands:
//
//	set WORD..        a new set: replicas=3 parallel onDelete partition=2 maxUnavailable=50% start=5 minReady
//	                  whenDeleted=Delete whenScaled=Delete; claims "data" when one of the last two is said
//	scale N           another number of replicas
//	pods WORD..       the pods that there are now: 0:old 1:new:starting 2:old:going 3:new:failed 4:old:fresh
//	step              prints what one pass does: +0 makes, -1 deletes; "waits" if nothing
//	run               passes to the end, while every new pod comes up and every deleted one goes; prints each pass that does something
//	status            prints the figures
//	orphan NAME       prints what the set does with a pod of this name that nobody controls and its selector picks
//	claim N           prints with what the claim of pod N goes
type story struct {
	set    *appsv1.StatefulSet
	pods   string
	claims map[int][]metav1.OwnerReference
}

func TestScenarios(t *testing.T) {
	scenario.Play(t, func() scenario.Do { return (&story{}).do })
}

func (s *story) do(t *testing.T, words []string) string {
	args := words[1:]
	switch words[0] {
	case "set":
		s.set, s.pods, s.claims = parseSet(t, args), "", map[int][]metav1.OwnerReference{}
	case "scale":
		s.set.Spec.Replicas = number(t, args[0])
	case "pods":
		s.pods = strings.Join(args, " ")
	case "step":
		if got := describe(s.decide(t)); got != "" {
			return got
		}
		return "waits"
	case "run":
		return s.run(t)
	case "status":
		st := s.decide(t).status
		return fmt.Sprintf("%d pods, %d ready, %d available, %d current of %s, %d updated to %s", st.Replicas, st.ReadyReplicas, st.AvailableReplicas,
			st.CurrentReplicas, st.CurrentRevision, st.UpdatedReplicas, st.UpdateRevision)
	case "orphan":
		_, fits := ordinal(s.set, args[0])
		if owner.Decide(s.set, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: args[0]}}, true, fits) == owner.Adopt {
			return "adopts"
		}
		return "leaves it"
	case "claim":
		return s.claim(int(*number(t, args[0])))
	default:
		t.Fatalf("no command %q", words[0])
	}
	return ""
}

func (s *story) decide(t *testing.T) plan {
	return decide(input{set: s.set, pods: parse(t, s.set, s.pods), current: "old", update: "new", now: now})
}

// run lets every pass be carried out.
func (s *story) run(t *testing.T) string {
	pods := map[int]string{}
	for _, word := range strings.Fields(s.pods) {
		n, what, _ := strings.Cut(word, ":")
		pods[int(*number(t, n))] = what
	}
	var out []string
	for range 100 {
		var list []string
		for n, what := range pods {
			list = append(list, fmt.Sprintf("%d:%s", n, what))
		}
		slices.Sort(list)
		s.pods = strings.Join(list, " ")
		p := s.decide(t)
		if describe(p) == "" {
			return strings.Join(out, ", ")
		}
		out = append(out, describe(p))
		for _, n := range p.create {
			pods[n] = "old"
			if wantsUpdate(s.set, n) {
				pods[n] = "new"
			}
		}
		for _, pod := range p.remove {
			n, _ := ordinal(s.set, pod.Name)
			delete(pods, n)
		}
	}
	t.Fatalf("no end: %v", out)
	return ""
}

// claim remembers who owns the claim, as the store would.
func (s *story) claim(n int) string {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: podName(s.set, n), UID: types.UID(fmt.Sprint("pod", n))}}
	s.claims[n] = claimOwners(s.set, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{OwnerReferences: s.claims[n]}}, pod, n)
	if len(s.claims[n]) == 0 {
		return "stays"
	}
	var out []string
	for _, o := range s.claims[n] {
		out = append(out, "goes with "+o.Kind+" "+o.Name)
	}
	return strings.Join(out, ", ")
}

func parseSet(t *testing.T, words []string) *appsv1.StatefulSet {
	set := sample(1)
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "replicas":
			set.Spec.Replicas = number(t, value)
		case "parallel":
			parallel(set)
		case "onDelete":
			onDelete(set)
		case "partition":
			from(*number(t, value))(set)
		case "maxUnavailable":
			away(value)(set)
		case "start":
			set.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: *number(t, value)}
		case "minReady":
			minReady(set)
		case "whenDeleted", "whenScaled":
			p := set.Spec.PersistentVolumeClaimRetentionPolicy
			if p == nil {
				p = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: "Retain", WhenScaled: "Retain"}
				set.Spec.PersistentVolumeClaimRetentionPolicy = p
			}
			if key == "whenDeleted" {
				p.WhenDeleted = appsv1.PersistentVolumeClaimRetentionPolicyType(value)
			} else {
				p.WhenScaled = appsv1.PersistentVolumeClaimRetentionPolicyType(value)
			}
		default:
			t.Fatalf("no word %q", word)
		}
	}
	return set
}

func number(t *testing.T, text string) *int32 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	v := int32(n)
	return &v
}
