package job

import (
	"slices"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller/expectation"
)

// manual is a Job that picks app=sum.
func manual(name string, change func(*batchv1.Job)) *batchv1.Job {
	j := sample(change)
	j.Name, j.UID = name, types.UID(name)
	j.Spec.ManualSelector, j.Spec.Selector = ptr.To(true), &metav1.LabelSelector{MatchLabels: map[string]string{"app": "sum"}}
	return j
}

// labelled is a pod of app, of a Job if by is not empty; tracked: to be counted.
func labelled(name, app, by string, tracked bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), Labels: map[string]string{"app": app}}}
	if by != "" {
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(manual(by, nil), kind)}
	}
	if tracked {
		p.Finalizers = []string{batchv1.JobTrackingFinalizer}
	}
	return p
}

// cached returns a runner that knows the Jobs and pods, and its API, which has the same.
func cached(t *testing.T, jobs []*batchv1.Job, pods ...*corev1.Pod) (*runner, *fake.Clientset) {
	t.Helper()
	api := fake.NewClientset()
	all := informers.NewSharedInformerFactory(api, 0)
	r := &runner{jobs: all.Batch().V1().Jobs().Informer(), pods: all.Core().V1().Pods().Informer(), expect: expectation.New()}
	r.Client = api
	for _, j := range jobs {
		if err := api.Tracker().Add(j); err != nil {
			t.Fatal(err)
		}
		if err := r.jobs.GetIndexer().Add(j); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range pods {
		if err := api.Tracker().Add(p); err != nil {
			t.Fatal(err)
		}
		if err := r.pods.GetIndexer().Add(p); err != nil {
			t.Fatal(err)
		}
	}
	return r, api
}

func TestAdopt(t *testing.T) {
	done := func(j *batchv1.Job) {
		j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
	}
	for _, c := range []struct {
		what   string
		job    *batchv1.Job
		pods   []*corev1.Pod
		own    []string
		counts []string // pods that are controlled by the Job and to be counted, afterwards
	}{
		{"an orphan", manual("sum", nil), []*corev1.Pod{labelled("p", "sum", "", false)}, []string{"p"}, []string{"p"}},
		{"an orphan that an earlier Job did not count", manual("sum", nil), []*corev1.Pod{labelled("p", "sum", "", true)}, []string{"p"}, []string{"p"}},
		{"its own, counted", manual("sum", nil), []*corev1.Pod{labelled("p", "sum", "sum", false)}, []string{"p"}, nil},
		{"others'", manual("sum", nil), []*corev1.Pod{labelled("p", "sum", "other", true), labelled("q", "web", "", false)}, nil, nil},
		{"its own that lost the label", manual("sum", nil), []*corev1.Pod{labelled("p", "web", "sum", true)}, nil, nil},
		{"nothing once it is finished", manual("sum", done), []*corev1.Pod{labelled("p", "sum", "", false)}, nil, nil},
	} {
		r, api := cached(t, []*batchv1.Job{c.job}, c.pods...)
		var objs []any
		for _, p := range c.pods {
			objs = append(objs, p)
		}
		own, err := r.claim(t.Context(), c.job, objs)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		var names, counts []string
		for _, p := range own {
			names = append(names, p.Name)
		}
		list, err := api.CoreV1().Pods("ns").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list.Items {
			if by := metav1.GetControllerOf(&p); by != nil && by.UID == c.job.UID && tracks(&p) {
				counts = append(counts, p.Name)
			}
		}
		if !slices.Equal(names, c.own) || !slices.Equal(counts, c.counts) {
			t.Errorf("%s: has %v, is to count %v; want %v and %v", c.what, names, counts, c.own, c.counts)
		}
	}
}

// A pod that nobody controls wakes the Jobs that may take it; if there are none, it has been left behind.
func TestOrphanKeys(t *testing.T) {
	going := func(j *batchv1.Job) { j.DeletionTimestamp, j.Finalizers = &metav1.Time{Time: now}, []string{"orphan"} }
	foreign := func(j *batchv1.Job) { j.Spec.ManagedBy = ptr.To("example.com/other") }
	for _, c := range []struct {
		what string
		jobs []*batchv1.Job
		pod  *corev1.Pod
		want []string
	}{
		{"picked", []*batchv1.Job{manual("sum", nil)}, labelled("p", "sum", "", true), []string{"ns/sum"}},
		{"not picked", []*batchv1.Job{manual("sum", nil)}, labelled("p", "web", "", true), []string{"orphan:ns/p"}},
		{"not picked, not to be counted", []*batchv1.Job{manual("sum", nil)}, labelled("p", "web", "", false), nil},
		{"picked by one that goes", []*batchv1.Job{manual("sum", going)}, labelled("p", "sum", "", true), []string{"orphan:ns/p"}},
		{"picked by one that another controller runs", []*batchv1.Job{manual("sum", foreign)}, labelled("p", "sum", "", true), []string{"orphan:ns/p"}},
		{"controlled", []*batchv1.Job{manual("sum", nil)}, labelled("p", "sum", "sum", true), []string{"ns/sum"}},
	} {
		r, _ := cached(t, c.jobs, c.pod)
		if got := r.ofPod(c.pod, nil); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v; want %v", c.what, got, c.want)
		}
	}
}
