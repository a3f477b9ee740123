package workloads

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// template is the pods of a workload, which run until they are told to end.
func template(labels map[string]string) corev1.PodTemplateSpec {
	p := program("", "pause")
	p.Spec.RestartPolicy = corev1.RestartPolicyAlways
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: p.Spec}
}

// alive counts pods of a selector that are ready and stay.
func (s *spec) alive(selector string) []corev1.Pod {
	s.Helper()
	return slices.DeleteFunc(s.pods(selector), func(p corev1.Pod) bool { return p.DeletionTimestamp != nil || !ready(&p) })
}

func (s *spec) waitAlive(selector string, n int) []corev1.Pod {
	s.Helper()
	var pods []corev1.Pod
	s.eventually(fmt.Sprint(n, " pods of ", selector), func() string {
		if pods = s.alive(selector); len(pods) != n {
			return fmt.Sprint(len(pods), " are ready")
		}
		return ""
	})
	return pods
}

func (s *spec) kubectl(args ...string) string {
	s.Helper()
	out, errs, err := s.c.Kubectl(s.Context(), append([]string{"-n", s.ns}, args...)...)
	if err != nil {
		s.Fatalf("kubectl %v: %v\n%s%s", args, err, out, errs)
	}
	return out
}

// TestDeployments: RollingUpdate adopts a ReplicaSet, Recreate never runs both, rollover, old ReplicaSets cleaned up, proportional scaling, the scale subresource.
func TestDeployments(t *testing.T) {
	s := begin(t)
	deployments := s.client.AppsV1().Deployments(s.ns)
	labels := map[string]string{"name": "sample-pod"}
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "adopted", Labels: labels, Annotations: map[string]string{"deployment.kubernetes.io/revision": "3546343826724305832"}}, Spec: appsv1.ReplicaSetSpec{Replicas: ptr(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template(labels)}}
	rs.Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "OLD", Value: "1"}}
	_, err := s.client.AppsV1().ReplicaSets(s.ns).Create(t.Context(), rs, metav1.CreateOptions{})
	s.must(err)
	s.waitAlive("name=sample-pod", 1)
	d, err := deployments.Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "rolling"}, Spec: appsv1.DeploymentSpec{Replicas: ptr(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template(labels)}}, metav1.CreateOptions{})
	s.must(err)
	s.kubectl("rollout", "status", "deployment/rolling", "--timeout=180s")
	d, err = deployments.Get(t.Context(), "rolling", metav1.GetOptions{})
	s.must(err)
	s.equal("the revision after an adopted one", d.Annotations["deployment.kubernetes.io/revision"], "3546343826724305833")
	old, err := s.client.AppsV1().ReplicaSets(s.ns).Get(t.Context(), "adopted", metav1.GetOptions{})
	s.must(err)
	s.equal("the old ReplicaSet's owner", metav1.GetControllerOf(old).UID, d.UID)
	s.equal("its replicas", *old.Spec.Replicas, 0)

	scale, err := deployments.GetScale(t.Context(), "rolling", metav1.GetOptions{})
	s.must(err)
	s.equal("scale", scale.Spec.Replicas, 1)
	scale.ResourceVersion, scale.Spec.Replicas = "", 2
	got, err := deployments.UpdateScale(t.Context(), "rolling", scale, metav1.UpdateOptions{})
	s.must(err)
	s.equal("the new scale", got.Spec.Replicas, 2)
	_, err = deployments.Patch(t.Context(), "rolling", types.StrategicMergePatchType, []byte(`{"spec":{"replicas":4}}`), metav1.PatchOptions{}, "scale")
	s.must(err)
	s.waitAlive("name=sample-pod", 4)

	recreate := map[string]string{"name": "recreate"}
	_, err = deployments.Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "recreate"}, Spec: appsv1.DeploymentSpec{Replicas: ptr(int32(1)), RevisionHistoryLimit: ptr(int32(0)), Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
		Selector: &metav1.LabelSelector{MatchLabels: recreate}, Template: template(recreate)}}, metav1.CreateOptions{})
	s.must(err)
	s.kubectl("rollout", "status", "deployment/recreate", "--timeout=180s")
	s.kubectl("set", "env", "deployment/recreate", "NEW=1")
	s.kubectl("rollout", "status", "deployment/recreate", "--timeout=180s")
	s.eventually("old ReplicaSets go", func() string {
		list, err := s.client.AppsV1().ReplicaSets(s.ns).List(t.Context(), metav1.ListOptions{LabelSelector: "name=recreate"})
		s.must(err)
		if len(list.Items) != 1 {
			return fmt.Sprint(len(list.Items), " ReplicaSets")
		}
		return ""
	})

	// Proportional: 10 replicas, surge 3, unavailable 2, a new template that never gets ready: 8 and 5, then scaled to 30: 20 and 13.
	many := map[string]string{"name": "many"}
	_, err = deployments.Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "many"}, Spec: appsv1.DeploymentSpec{Replicas: ptr(int32(10)), Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: ptr(intstr.FromInt32(3)), MaxUnavailable: ptr(intstr.FromInt32(2))}}, Selector: &metav1.LabelSelector{MatchLabels: many}, Template: template(many)}}, metav1.CreateOptions{})
	s.must(err)
	s.waitAlive("name=many", 10)
	s.kubectl("set", "image", "deployment/many", "c=docker.io/conformance/none-such:404")
	sizes := func(want string) {
		t.Helper()
		s.eventually("sizes "+want, func() string {
			list, err := s.client.AppsV1().ReplicaSets(s.ns).List(t.Context(), metav1.ListOptions{LabelSelector: "name=many"})
			s.must(err)
			var out []string
			for _, r := range list.Items {
				out = append(out, fmt.Sprint(r.Annotations["deployment.kubernetes.io/revision"], ":", *r.Spec.Replicas, "/", r.Annotations["deployment.kubernetes.io/max-replicas"]))
			}
			slices.Sort(out)
			if strings.Join(out, " ") != want {
				return fmt.Sprint(out)
			}
			return ""
		})
	}
	sizes("1:8/13 2:5/13")
	s.kubectl("scale", "deployment/many", "--replicas=30")
	sizes("1:20/33 2:13/33")
	s.kubectl("delete", "deployment/many", "--wait=false")
}

// TestReplicas: ReplicaSet and ReplicationController adopt and release pods, scale, and tell of a quota that is exceeded.
func TestReplicas(t *testing.T) {
	s := begin(t)
	for name, create := range map[string]func(labels map[string]string) error{
		"rs": func(labels map[string]string) error {
			_, err := s.client.AppsV1().ReplicaSets(s.ns).Create(t.Context(), &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "rs"}, Spec: appsv1.ReplicaSetSpec{Replicas: ptr(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template(labels)}}, metav1.CreateOptions{})
			return err
		},
		"rc": func(labels map[string]string) error {
			_, err := s.client.CoreV1().ReplicationControllers(s.ns).Create(t.Context(), &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "rc"}, Spec: corev1.ReplicationControllerSpec{Replicas: ptr(int32(1)), Selector: labels, Template: ptr(template(labels))}}, metav1.CreateOptions{})
			return err
		},
	} {
		p := program("orphan-"+name, "pause")
		p.Labels = map[string]string{"name": name}
		s.run(p)
		s.must(create(map[string]string{"name": name}))
		s.until(p.Name, "is adopted", func(p *corev1.Pod) bool { o := metav1.GetControllerOf(p); return o != nil && o.Name == name })
		_, err := s.client.CoreV1().Pods(s.ns).Patch(t.Context(), p.Name, types.MergePatchType, []byte(`{"metadata":{"labels":{"name":"none"}}}`), metav1.PatchOptions{})
		s.must(err)
		s.until(p.Name, "is released", func(p *corev1.Pod) bool { return metav1.GetControllerOf(p) == nil })
		s.waitAlive("name="+name, 1)
	}
	rcs := s.client.CoreV1().ReplicationControllers(s.ns)
	_, err := rcs.UpdateScale(t.Context(), "rc", &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "rc", Namespace: s.ns}, Spec: autoscalingv1.ScaleSpec{Replicas: 2}}, metav1.UpdateOptions{})
	s.must(err)
	s.waitAlive("name=rc", 2)
	_, err = s.client.CoreV1().ResourceQuotas(s.ns).Create(t.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"pods": resource.MustParse("6")}}}, metav1.CreateOptions{})
	s.must(err)
	s.eventually("the quota counts", func() string {
		q, err := s.client.CoreV1().ResourceQuotas(s.ns).Get(t.Context(), "q", metav1.GetOptions{})
		s.must(err)
		if q.Status.Used.Pods().Value() == 0 {
			return "nothing used"
		}
		return ""
	})
	for _, kind := range []string{"rc", "rs"} {
		failure := func(want bool) {
			t.Helper()
			s.eventually(fmt.Sprint(kind, " with a ReplicaFailure is ", want), func() string {
				out := s.kubectl("get", kind, kind, "-o", "jsonpath={.status.conditions[?(@.type==\"ReplicaFailure\")].status}{.status.conditions[?(@.type==\"ReplicaFailure\")].reason}")
				if (out == "TrueFailedCreate") != want || !want && out != "" {
					return out
				}
				return ""
			})
		}
		s.kubectl("scale", kind, kind, "--replicas=9")
		failure(true)
		s.kubectl("scale", kind, kind, "--replicas=1")
		failure(false)
	}
}

// TestDaemonSets: pods come back, follow node labels, roll, roll back without restarts; revisions are numbered; a failed pod is replaced.
func TestDaemonSets(t *testing.T) {
	s := begin(t)
	sets := s.client.AppsV1().DaemonSets(s.ns)
	labels := map[string]string{"daemonset-name": "ds"}
	_, err := sets.Create(t.Context(), &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "ds"}, Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template(labels)}}, metav1.CreateOptions{})
	s.must(err)
	pods := s.waitAlive("daemonset-name=ds", 1)
	s.must(s.client.CoreV1().Pods(s.ns).Delete(t.Context(), pods[0].Name, metav1.DeleteOptions{}))
	s.eventually("another pod", func() string {
		if now := s.alive("daemonset-name=ds"); len(now) != 1 || now[0].UID == pods[0].UID {
			return fmt.Sprint(len(now))
		}
		return ""
	})
	pod := s.alive("daemonset-name=ds")[0]
	pod.ResourceVersion, pod.Status.Phase = "", corev1.PodFailed
	_, err = s.client.CoreV1().Pods(s.ns).UpdateStatus(t.Context(), &pod, metav1.UpdateOptions{})
	s.must(err)
	s.eventually("the failed pod goes", func() string {
		if now := s.alive("daemonset-name=ds"); len(now) != 1 || now[0].UID == pod.UID {
			return fmt.Sprint(len(now))
		}
		return ""
	})
	s.kubectl("set", "env", "daemonset/ds", "NEW=1")
	s.kubectl("rollout", "status", "daemonset/ds", "--timeout=180s")
	s.kubectl("set", "image", "daemonset/ds", "c=docker.io/conformance/none-such:404")
	s.eventually("a pod that cannot start", func() string {
		for _, p := range s.pods("daemonset-name=ds") {
			if strings.Contains(p.Spec.Containers[0].Image, "none-such") {
				return ""
			}
		}
		return "none"
	})
	s.kubectl("rollout", "undo", "daemonset/ds")
	s.kubectl("rollout", "status", "daemonset/ds", "--timeout=180s")
	list, err := s.client.AppsV1().ControllerRevisions(s.ns).List(t.Context(), metav1.ListOptions{LabelSelector: "daemonset-name=ds"})
	s.must(err)
	var numbers []int64
	for _, r := range list.Items {
		numbers = append(numbers, r.Revision)
	}
	slices.Sort(numbers)
	s.equal("revisions", numbers, "[1 3 4]")

	selected := map[string]string{"daemonset-name": "selected"}
	tmpl := template(selected)
	tmpl.Spec.NodeSelector = map[string]string{s.ns: "blue"}
	_, err = sets.Create(t.Context(), &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "selected"}, Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: selected}, Template: tmpl, UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}}}, metav1.CreateOptions{})
	s.must(err)
	s.kubectl("label", "node", s.c.NodeName, s.ns+"=blue")
	s.waitAlive("daemonset-name=selected", 1)
	s.kubectl("label", "node", s.c.NodeName, "--overwrite", s.ns+"=green")
	s.waitAlive("daemonset-name=selected", 0)
	s.kubectl("patch", "daemonset", "selected", "--type=merge", "-p", `{"spec":{"template":{"spec":{"nodeSelector":{"`+s.ns+`":"green"}}},"updateStrategy":{"type":"RollingUpdate"}}}`)
	s.waitAlive("daemonset-name=selected", 1)
	s.kubectl("label", "node", s.c.NodeName, s.ns+"-")
}

func (s *spec) job(name string, change func(*batchv1.JobSpec), script string) *batchv1.Job {
	s.Helper()
	p := shell("", script)
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: batchv1.JobSpec{Parallelism: ptr(int32(2)), Completions: ptr(int32(4)), Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"job": name}}, Spec: p.Spec}}}
	if change != nil {
		change(&j.Spec)
	}
	j, err := s.client.BatchV1().Jobs(s.ns).Create(s.Context(), j, metav1.CreateOptions{})
	s.must(err)
	return j
}

// jobEnds waits for a condition of a job and returns the job.
func (s *spec) jobEnds(name string, typ batchv1.JobConditionType, reason string) *batchv1.Job {
	s.Helper()
	var j *batchv1.Job
	s.eventually(fmt.Sprint("job ", name, " is ", typ), func() string {
		var err error
		j, err = s.client.BatchV1().Jobs(s.ns).Get(s.Context(), name, metav1.GetOptions{})
		s.must(err)
		for _, c := range j.Status.Conditions {
			if c.Type == typ && c.Status == corev1.ConditionTrue && c.Reason == reason {
				return ""
			}
		}
		return fmt.Sprintf("%+v", j.Status)
	})
	return j
}

// TestJobs: local restarts, indexes, pod failure policies by exit code and disruption, limits for each index, success policies, suspension, adoption and release.
func TestJobs(t *testing.T) {
	s := begin(t)
	indexed := ptr(batchv1.IndexedCompletion)
	s.job("local", func(j *batchv1.JobSpec) {
		j.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		j.Template.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		j.Template.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	}, "if [ -f /v/ran ]; then exit 0; fi; touch /v/ran; exit 1")
	s.job("indexed", func(j *batchv1.JobSpec) { j.CompletionMode = indexed }, "test \"$JOB_COMPLETION_INDEX\" -ge 0 && hostname | grep -q indexed-$JOB_COMPLETION_INDEX")
	s.job("policy", func(j *batchv1.JobSpec) {
		j.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{ContainerName: ptr("c"), Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{1}}}}}
	}, "exit 1")
	s.job("each", func(j *batchv1.JobSpec) {
		j.CompletionMode, j.BackoffLimitPerIndex, j.Completions = indexed, ptr(int32(0)), ptr(int32(4))
	}, "exit $((JOB_COMPLETION_INDEX % 2))")
	s.job("few", func(j *batchv1.JobSpec) {
		j.CompletionMode, j.BackoffLimitPerIndex, j.MaxFailedIndexes, j.Parallelism = indexed, ptr(int32(0)), ptr(int32(0)), ptr(int32(1))
	}, "exit 1")
	s.job("ignoring", func(j *batchv1.JobSpec) {
		j.CompletionMode, j.BackoffLimitPerIndex, j.Completions, j.Parallelism = indexed, ptr(int32(1)), ptr(int32(2)), ptr(int32(2))
		j.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: batchv1.PodFailurePolicyActionFailIndex, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42}}}}}
	}, "if [ $JOB_COMPLETION_INDEX = 0 ]; then exit 42; fi")
	s.job("success", func(j *batchv1.JobSpec) {
		j.CompletionMode, j.Completions = indexed, ptr(int32(5))
		j.Parallelism = ptr(int32(2))
		j.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: ptr("0")}}}
	}, "if [ $JOB_COMPLETION_INDEX = 0 ]; then exit 0; fi; sleep 1000")
	s.job("counted", func(j *batchv1.JobSpec) {
		j.CompletionMode, j.Completions, j.Parallelism = indexed, ptr(int32(5)), ptr(int32(5))
		j.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededCount: ptr(int32(1))}}}
	}, "if [ $JOB_COMPLETION_INDEX = 3 ]; then exit 0; fi; sleep 1000")
	s.job("long", nil, "sleep 1000")
	s.job("disrupted", func(j *batchv1.JobSpec) {
		j.Completions, j.Parallelism, j.BackoffLimit = ptr(int32(1)), ptr(int32(1)), ptr(int32(0))
		j.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}},
			{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpNotIn, Values: []int32{0}}}}}
		j.Template.Spec.TerminationGracePeriodSeconds = ptr(int64(5))
	}, "trap 'exit 1' TERM; i=0; while [ $i -lt 30 ]; do sleep 1; i=$((i+1)); done")

	s.equal("local's successes", s.jobEnds("local", batchv1.JobComplete, "CompletionsReached").Status.Succeeded, 4)
	j := s.jobEnds("indexed", batchv1.JobComplete, "CompletionsReached")
	s.equal("completed indexes", j.Status.CompletedIndexes, "0-3")
	for _, p := range s.pods("job=indexed") {
		index := p.Annotations[batchv1.JobCompletionIndexAnnotation]
		s.equal("hostname", p.Spec.Hostname, "indexed-"+index)
		s.equal("label", p.Labels[batchv1.JobCompletionIndexAnnotation], index)
	}
	j = s.jobEnds("policy", batchv1.JobFailed, "PodFailurePolicy")
	j = s.jobEnds("each", batchv1.JobFailed, "FailedIndexes")
	s.equal("each", j.Status.CompletedIndexes+" "+*j.Status.FailedIndexes, "0,2 1,3")
	j = s.jobEnds("few", batchv1.JobFailed, "MaxFailedIndexesExceeded")
	s.equal("few's failed indexes", *j.Status.FailedIndexes, "0")
	j = s.jobEnds("ignoring", batchv1.JobFailed, "FailedIndexes")
	s.equal("failed without a second try", fmt.Sprint(*j.Status.FailedIndexes, " ", j.Status.Failed), "0 1")
	s.jobEnds("success", batchv1.JobSuccessCriteriaMet, "SuccessPolicy")
	j = s.jobEnds("success", batchv1.JobComplete, "SuccessPolicy")
	s.equal("success", fmt.Sprint(j.Status.CompletedIndexes, " ", j.Status.Active, " ", *j.Status.Terminating), "0 0 0")
	s.equal("counted", s.jobEnds("counted", batchv1.JobComplete, "SuccessPolicy").Status.CompletedIndexes, "3")

	pods := s.waitAlive("job=long", 2)
	_, err := s.client.CoreV1().Pods(s.ns).Patch(t.Context(), pods[0].Name, types.MergePatchType, []byte(`{"metadata":{"ownerReferences":null}}`), metav1.PatchOptions{})
	s.must(err)
	s.until(pods[0].Name, "is adopted again", func(p *corev1.Pod) bool { return metav1.GetControllerOf(p) != nil })
	_, err = s.client.CoreV1().Pods(s.ns).Patch(t.Context(), pods[0].Name, types.JSONPatchType, []byte(`[{"op":"replace","path":"/metadata/labels","value":{"a":"b"}}]`), metav1.PatchOptions{})
	s.must(err)
	s.until(pods[0].Name, "is released", func(p *corev1.Pod) bool { return metav1.GetControllerOf(p) == nil })
	s.kubectl("patch", "job", "long", "--type=merge", "-p", `{"spec":{"suspend":true}}`)
	s.jobEnds("long", batchv1.JobSuspended, "JobSuspended")
	s.eventually("no pods while suspended", func() string {
		if n := len(s.pods("job=long")); n != 0 {
			return fmt.Sprint(n, " pods")
		}
		return ""
	})

	victim := s.waitAlive("job=disrupted", 1)[0]
	s.must(s.client.PolicyV1().Evictions(s.ns).Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: victim.Name, Namespace: s.ns}}))
	j = s.jobEnds("disrupted", batchv1.JobComplete, "CompletionsReached")
	s.equal("disrupted's failures", j.Status.Failed, 0)
}

// TestCronJobs: Allow, Forbid, Replace and suspension, over a minute or two.
func TestCronJobs(t *testing.T) {
	s := begin(t)
	make := func(name string, policy batchv1.ConcurrencyPolicy, suspend bool) {
		p := shell("", "sleep 300")
		_, err := s.client.BatchV1().CronJobs(s.ns).Create(t.Context(), &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: batchv1.CronJobSpec{Schedule: "*/1 * * * ?", ConcurrencyPolicy: policy, Suspend: &suspend,
			JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: p.Spec}}}}}, metav1.CreateOptions{})
		s.must(err)
	}
	make("allow", batchv1.AllowConcurrent, false)
	make("forbid", batchv1.ForbidConcurrent, false)
	make("replace", batchv1.ReplaceConcurrent, false)
	make("still", batchv1.AllowConcurrent, true)
	active := func(name string) []corev1.ObjectReference {
		t.Helper()
		c, err := s.client.BatchV1().CronJobs(s.ns).Get(t.Context(), name, metav1.GetOptions{})
		s.must(err)
		return c.Status.Active
	}
	s.eventually("each has a job", func() string {
		if len(active("forbid")) != 1 || len(active("replace")) != 1 {
			return "not yet"
		}
		return ""
	})
	first := active("replace")[0].Name
	s.eventually("allow has two jobs", func() string {
		if len(active("allow")) < 2 {
			return "one"
		}
		return ""
	})
	s.eventually("the job is replaced", func() string {
		if now := active("replace"); len(now) != 1 || now[0].Name == first {
			return fmt.Sprint(now)
		}
		return ""
	})
	s.equal("forbid's jobs", len(active("forbid")), 1)
	s.equal("jobs while suspended", len(active("still")), 0)
}

// TestDisruptionBudgets: status, an eviction that is refused until the budget allows it.
func TestDisruptionBudgets(t *testing.T) {
	s := begin(t)
	budgets := s.client.PolicyV1().PodDisruptionBudgets(s.ns)
	labels := map[string]string{"foo": "bar"}
	make := func(n int32) {
		_, err := budgets.Create(t.Context(), &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "foo"}, Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr(intstr.FromInt32(n)), Selector: &metav1.LabelSelector{MatchLabels: labels}}}, metav1.CreateOptions{})
		s.must(err)
	}
	allowed := func(n, healthy int32) {
		t.Helper()
		s.eventually(fmt.Sprint(n, " disruptions allowed"), func() string {
			b, err := budgets.Get(t.Context(), "foo", metav1.GetOptions{})
			s.must(err)
			if b.Status.ObservedGeneration < b.Generation || b.Status.DisruptionsAllowed != n || b.Status.CurrentHealthy != healthy {
				return fmt.Sprintf("%+v", b.Status)
			}
			return ""
		})
	}
	make(1)
	allowed(0, 0)
	for i := range 3 {
		p := program(fmt.Sprint("pod-", i), "pause")
		p.Labels = labels
		s.run(p)
	}
	allowed(2, 3)
	s.kubectl("patch", "pdb", "foo", "--type=merge", "-p", `{"spec":{"minAvailable":3}}`)
	allowed(0, 3)
	evict := func() error {
		return s.client.PolicyV1().Evictions(s.ns).Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "pod-0", Namespace: s.ns}})
	}
	err := evict()
	if !apierrors.IsTooManyRequests(err) || !apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause) {
		t.Errorf("the eviction: %v, want TooManyRequests, caused by the budget", err)
	}
	s.kubectl("patch", "pdb", "foo", "--type=merge", "-p", `{"spec":{"minAvailable":2}}`)
	allowed(1, 3)
	s.must(evict())
	allowed(0, 2)
}
