package owner

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

func set(uid types.UID, going bool) *appsv1.StatefulSet {
	s := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "db", UID: uid},
		Spec: appsv1.StatefulSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}}
	if going {
		s.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	}
	return s
}

func pod(name, app string, owner types.UID, going bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), Labels: map[string]string{"app": app}}}
	if owner != "" {
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(set(owner, false), appsv1.SchemeGroupVersion.WithKind("StatefulSet"))}
	}
	if going {
		p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	}
	return p
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		what        string
		by          *appsv1.StatefulSet
		pod         *corev1.Pod
		picked, fit bool
		want        Verdict
	}{
		{"its own", set("me", false), pod("p", "", "me", false), true, false, Mine},
		{"its own that leaves", set("me", false), pod("p", "", "me", true), true, true, Mine},
		{"its own, of another label now", set("me", false), pod("p", "", "me", false), false, true, Release},
		{"nothing is released by an owner that goes: the collector sees to it", set("me", true), pod("p", "", "me", false), false, true, Foreign},
		{"another's", set("me", false), pod("p", "", "you", false), true, true, Foreign},
		{"an orphan", set("me", false), pod("p", "", "", false), true, true, Adopt},
		{"an orphan that is not picked", set("me", false), pod("p", "", "", false), false, true, Foreign},
		{"an orphan that does not fit", set("me", false), pod("p", "", "", false), true, false, Foreign},
		{"an orphan that leaves", set("me", false), pod("p", "", "", true), true, true, Foreign},
		{"an orphan of an owner that goes", set("me", true), pod("p", "", "", false), true, true, Foreign},
	} {
		if got := Decide(c.by, c.pod, c.picked, c.fit); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
}

func TestTake(t *testing.T) {
	for _, c := range []struct {
		what    string
		live    *appsv1.StatefulSet
		gone    string // a pod that the API no longer has
		taken   string
		patched string
		err     bool
	}{
		{"adopts and releases", set("me", false), "", "adopted:orphan mine", "+orphan -strayed", false},
		{"an orphan that has just gone", set("me", false), "orphan", "mine", "+orphan -strayed", false},
		{"the cache does not know yet that the owner goes", set("me", true), "", "mine", "-strayed", true},
		{"another owner has its name by now", set("you", false), "", "mine", "-strayed", true},
	} {
		var patched []string
		claim := Claim[*corev1.Pod]{Owner: set("me", false), Kind: appsv1.SchemeGroupVersion.WithKind("StatefulSet"), Selector: Selector(set("me", false).Spec.Selector),
			Fit:  func(p *corev1.Pod) bool { return !strings.Contains(p.Name, "unfit") },
			Live: func() (metav1.Object, error) { return c.live, nil },
			Patch: func(name string, patch []byte) (*corev1.Pod, error) {
				sign := "-"
				if strings.Contains(string(patch), `"controller":true`) {
					sign = "+"
				}
				patched = append(patched, sign+name)
				if !strings.Contains(string(patch), `"uid":"`+name+`"`) {
					return nil, fmt.Errorf("not of this object alone: %s", patch)
				}
				if name == c.gone {
					return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
				}
				return pod("adopted:"+name, "db", "me", false), nil
			}}
		got, err := claim.Take([]any{pod("mine", "db", "me", false), pod("orphan", "db", "", false), pod("strayed", "web", "me", false),
			pod("other", "db", "you", false), pod("unfit", "db", "", false)})
		var names []string
		for _, p := range got {
			names = append(names, p.Name)
		}
		slices.Sort(names)
		slices.Sort(patched)
		if strings.Join(names, " ") != c.taken || strings.Join(patched, " ") != c.patched || (err != nil) != c.err {
			t.Errorf("%s: took %v, patched %v, %v; want %q and %q", c.what, names, patched, err, c.taken, c.patched)
		}
	}
	claim := Claim[*corev1.Pod]{Owner: set("me", false), Selector: labels.Everything(), Live: func() (metav1.Object, error) { return nil, errors.New("no answer") }}
	if got, err := claim.Take([]any{pod("orphan", "db", "", false)}); err == nil || len(got) != 0 {
		t.Errorf("an API that does not answer: took %v, %v", got, err)
	}
}

// The finalizer comes and goes in the one write that makes and ends the hold.
func TestTakeWithFinalizer(t *testing.T) {
	patches := map[string]string{}
	claim := Claim[*corev1.Pod]{Owner: set("me", false), Selector: Selector(set("me", false).Spec.Selector), Finalizer: "f",
		Live: func() (metav1.Object, error) { return set("me", false), nil },
		Patch: func(name string, patch []byte) (*corev1.Pod, error) {
			patches[name] = string(patch)
			return pod(name, "db", "me", false), nil
		}}
	if _, err := claim.Take([]any{pod("orphan", "db", "", false), pod("strayed", "web", "me", false)}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"orphan": `"finalizers":["f"]`, "strayed": `"$deleteFromPrimitiveList/finalizers":["f"]`} {
		if !strings.Contains(patches[name], want) || !strings.Contains(patches[name], `"ownerReferences"`) {
			t.Errorf("%s: %s; want %s in it", name, patches[name], want)
		}
	}
}

func TestKeys(t *testing.T) {
	sets := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	if err := sets.Add(set("me", false)); err != nil {
		t.Fatal(err)
	}
	selector := func(w any) labels.Selector { return Selector(w.(*appsv1.StatefulSet).Spec.Selector) }
	for _, c := range []struct {
		pod  *corev1.Pod
		want string
	}{{pod("p", "db", "", false), "ns/db"}, {pod("p", "web", "", false), ""}, {pod("p", "db", "you", false), ""}} {
		if got := strings.Join(Keys(sets, c.pod, selector), " "); got != c.want {
			t.Errorf("%v: %q, want %q", c.pod.Labels, got, c.want)
		}
	}
}
