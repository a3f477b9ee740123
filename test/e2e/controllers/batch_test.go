package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// waitJob waits for a condition of a Job and, if it does not come, tells the Job's story.
func waitJob(t *testing.T, name, condition string) {
	t.Helper()
	c := labtest.Cluster(t)
	if out, errs, err := c.Kubectl(t.Context(), "wait", "--for=condition="+condition, "job/"+name, "--timeout="+labtest.Patience.String()); err != nil {
		story, _, _ := c.Kubectl(t.Context(), "describe", "job", name)
		t.Fatalf("job %s does not become %s: %s%s\n%s", name, condition, out, errs, story)
	}
}

// TestJob: completions by number and by index, failure by back-off limit and by policy, deletion by age.
func TestJob(t *testing.T) {
	t.Parallel() // it waits most of the time
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: batch/v1
kind: Job
metadata: {name: three}
spec:
  completions: 3
  parallelism: 2
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: "busybox:1.28", command: ["true"]}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: indexed}
spec:
  completions: 2
  parallelism: 2
  completionMode: Indexed
  backoffLimitPerIndex: 1
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: "busybox:1.28", command: ["sh", "-c", "exit $JOB_COMPLETION_INDEX"]}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: hopeless}
spec:
  backoffLimit: 0
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: "busybox:1.28", command: ["false"]}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: fatal}
spec:
  podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: "busybox:1.28", command: ["sh", "-c", "exit 42"]}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: brief}
spec:
  ttlSecondsAfterFinished: 0
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: "busybox:1.28", command: ["true"]}]}}
`)
	waitJob(t, "three", "Complete")
	waitJob(t, "indexed", "Failed")
	waitJob(t, "hopeless", "Failed")
	waitJob(t, "fatal", "Failed")
	for _, want := range []struct{ job, path, value string }{
		{"three", "{.status.succeeded}", "3"},
		{"indexed", "{.status.completedIndexes}/{.status.failedIndexes}", "0/1"},
		{"indexed", "{.status.failed}", "2"},
		{"hopeless", `{.status.conditions[?(@.type=="Failed")].reason}`, "BackoffLimitExceeded"},
		{"fatal", `{.status.conditions[?(@.type=="Failed")].reason}`, "PodFailurePolicy"},
	} {
		if got := labtest.Kubectl(t, c, "get", "job", want.job, "-o", "jsonpath="+want.path); got != want.value {
			t.Errorf("job %s: %s is %q, want %q", want.job, want.path, got, want.value)
		}
	}
	if pods := labtest.Kubectl(t, c, "get", "pods", "-l", "batch.kubernetes.io/job-name=three", "-o", "jsonpath={.items[*].metadata.finalizers}"); pods != "" {
		t.Errorf("counted pods are still held: %s", pods)
	}
	labtest.Eventually(t, "a job with no time to live goes with its pods", func() string {
		return labtest.Kubectl(t, c, "get", "jobs,pods", "-l", "batch.kubernetes.io/job-name=brief", "-o", "name") +
			labtest.Kubectl(t, c, "get", "job", "brief", "--ignore-not-found", "-o", "name")
	})
}

// TestJobLeavesPods: a Job that is deleted alone leaves its pods behind, and nothing keeps them.
func TestJobLeavesPods(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: batch/v1
kind: Job
metadata: {name: leaves}
spec:
  template: {spec: {terminationGracePeriodSeconds: 0, restartPolicy: Never, containers: [{name: c, image: "busybox:1.28", command: ["sleep", "3600"]}]}}
`)
	labtest.Kubectl(t, c, "wait", "--for=jsonpath={.status.active}=1", "job/leaves", "--timeout="+labtest.Patience.String())
	labtest.Kubectl(t, c, "delete", "job", "leaves", "--cascade=orphan")
	labtest.Eventually(t, "the pod belongs to nobody and nothing holds it", func() string {
		return labtest.Kubectl(t, c, "get", "pods", "-l", "job-name=leaves", "-o", "jsonpath={.items[*].metadata.finalizers}{.items[*].metadata.ownerReferences}")
	})
	labtest.Kubectl(t, c, "delete", "pods", "-l", "job-name=leaves", "--timeout="+labtest.Patience.String())
}

// TestJobSuspend: a suspended Job has no pods, and goes on when it may.
func TestJobSuspend(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: batch/v1
kind: Job
metadata: {name: later}
spec:
  suspend: true
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: "busybox:1.28", command: ["true"]}]}}
`)
	waitJob(t, "later", "Suspended")
	if pods := labtest.Kubectl(t, c, "get", "pods", "-l", "job-name=later", "-o", "name"); pods != "" {
		t.Errorf("a suspended job has pods: %s", pods)
	}
	labtest.Kubectl(t, c, "patch", "job", "later", "-p", `{"spec":{"suspend":false}}`)
	waitJob(t, "later", "Complete")
}

// TestCronJob: a schedule starts a Job; `create job --from` starts one at once.
func TestCronJob(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "@every 1s"
  concurrencyPolicy: Forbid
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: "busybox:1.28", command: ["true"]}]}}}}
`)
	labtest.Kubectl(t, c, "create", "job", "by-hand", "--from=cronjob/tick")
	t.Cleanup(func() { _, _, _ = c.Kubectl(context.Background(), "delete", "job", "by-hand", "--ignore-not-found") })
	waitJob(t, "by-hand", "Complete")
	labtest.Eventually(t, "a job of the clock has succeeded", func() string {
		jobs := labtest.Kubectl(t, c, "get", "jobs", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.succeeded} {end}`)
		for _, job := range strings.Fields(jobs) {
			if strings.HasPrefix(job, "tick-") && strings.HasSuffix(job, "=1") {
				return ""
			}
		}
		return jobs
	})
	labtest.Eventually(t, "the cron job knows its last time, and events tell of it", func() string {
		at := labtest.Kubectl(t, c, "get", "cronjob", "tick", "-o", "jsonpath={.status.lastScheduleTime}")
		events := labtest.Kubectl(t, c, "get", "events", "--field-selector", "involvedObject.name=tick")
		if at == "" || !strings.Contains(events, "Created job tick-") {
			return at + "\n" + events
		}
		return ""
	})
}

// TestJobAdopts: a Job with a selector of its own takes over what a Job before it left behind, the pod that has succeeded too, and
// runs only what is missing.
func TestJobAdopts(t *testing.T) {
	c := labtest.Cluster(t)
	job := func(name string, completions int) string {
		return fmt.Sprintf(`apiVersion: batch/v1
kind: Job
metadata: {name: %s}
spec:
  completions: %d
  parallelism: 1
  manualSelector: true
  selector: {matchLabels: {app: heirloom}}
  template:
    metadata: {labels: {app: heirloom}}
    spec: {restartPolicy: Never, terminationGracePeriodSeconds: 0, containers: [{name: c, image: "busybox:1.28", command: ["true"]}]}
`, name, completions)
	}
	pods := func(of string) string {
		return labtest.Kubectl(t, c, "get", "pods", "-l", "app=heirloom", "-o", `go-template={{range .items}}{{`+of+`}} {{end}}`)
	}
	labtest.Apply(t, c, job("testator", 1))
	waitJob(t, "testator", "Complete")
	before := strings.TrimSpace(pods(".metadata.name"))
	labtest.Kubectl(t, c, "delete", "job", "testator", "--cascade=orphan")
	labtest.Eventually(t, "nobody controls the pod", func() string { return strings.TrimSpace(pods("range .metadata.ownerReferences}}{{.name}}{{end")) })
	labtest.Apply(t, c, job("heir", 2))
	waitJob(t, "heir", "Complete")
	names := strings.Fields(pods(".metadata.name"))
	if len(names) != 2 || !slices.Contains(names, before) {
		t.Errorf("pods %v; want %s and one more", names, before)
	}
	if got := pods("range .metadata.ownerReferences}}{{.name}}{{end"); got != "heir heir " {
		t.Errorf("the pods are of %s", got)
	}
	if got := labtest.Kubectl(t, c, "get", "job", "heir", "-o", "jsonpath={.status.succeeded} {.status.uncountedTerminatedPods}"); got != "2 {}" {
		t.Errorf("succeeded %s", got)
	}
	labtest.Eventually(t, "every pod is counted", func() string { return strings.TrimSpace(pods("range .metadata.finalizers}}{{.}}{{end")) })
}
