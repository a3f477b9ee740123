package plan

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/kubelet/observe"
)

var rewrite = flag.Bool("rewrite", false, "write what the planner says into the scenarios; then understand the diff")

// TestScenarios runs testdata/*.txt. A scenario is a list of commands, one a line; "plan" prints the decision, which
// stands below it after "----". The commands, by example:
//
//	pod policy=Never grace=10 deadline=60   the pod, before its containers
//	init a | sidecar b startup | container c | ephemeral d
//	volumes busy|done|failed                what the worker remembers
//	image c busy|done|failed                of the image of c
//	start c failed                          of the start of c
//	stopping c in=10s                       a stop of c is under way, dead at the latest in 10 s
//	crash c delay=20s ago=5s                c restarted 5 s ago and waits 20 s before it does again
//	started c | unhealthy c                 what the probes say of c's newest instance
//	sandbox 0 ready|dead                    the runtime's sandbox of that attempt
//	run c 0 | made c 0                      an instance of c in the newest sandbox, running or only created
//	exit c 0 code=1 ago=3s                  one that ended 3 s ago
//	was c restarts=4                        what the API's status last said
//	resources c shares=512 memory=1000000   what the cgroup of c is to hold (applied: what was last written into it)
//	delete grace=30 ago=2s                  the pod ends since 2 s
//	now +10s                                time passes
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios (%v)", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) { scenario(t, f) })
	}
}

func scenario(t *testing.T, file string) {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld()
	var out strings.Builder
	lines := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if skip := strings.TrimSpace(line); skip == "" || strings.HasPrefix(skip, "#") {
			out.WriteString(line + "\n")
			continue
		}
		out.WriteString(line + "\n")
		if strings.Fields(line)[0] != "plan" {
			if err := w.do(strings.Fields(line)); err != nil {
				t.Fatalf("%s:%d: %v", file, i+1, err)
			}
			continue
		}
		got := w.plan()
		out.WriteString("----\n" + got)
		if i+1 < len(lines) && lines[i+1] == "----" {
			for i++; i+1 < len(lines) && lines[i+1] != ""; i++ {
			}
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if out.String() != string(raw) {
		t.Errorf("%s: the planner says otherwise (go test -rewrite, then look at the diff):\n%s", file, out.String())
	}
}

type world struct {
	in   In
	zero time.Time
}

func newWorld() *world {
	zero := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	w := &world{zero: zero}
	w.in = In{Now: zero, Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "uid"}}}
	w.in.Memory = Memory{
		Images: map[string]Step{}, Starts: map[string]Step{}, Crashes: map[string]Crash{}, Stops: map[string]Stop{},
		Started: map[string]bool{}, Unhealthy: map[string]string{},
	}
	w.in.Pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	return w
}

// args splits "key=value" words from the others.
func args(words []string) (plain []string, named map[string]string) {
	named = map[string]string{}
	for _, s := range words {
		if k, v, is := strings.Cut(s, "="); is {
			named[k] = v
		} else {
			plain = append(plain, s)
		}
	}
	return plain, named
}

func duration(s string) time.Duration {
	d, _ := time.ParseDuration(strings.TrimPrefix(s, "+"))
	return d
}

func (w *world) do(words []string) error {
	plain, named := args(words[1:])
	first := ""
	if len(plain) > 0 {
		first = plain[0]
	}
	switch words[0] {
	case "pod":
		w.pod(named)
	case "init", "sidecar", "container", "ephemeral":
		w.container(words[0], first, slices.Contains(plain, "startup"), named["all"])
	case "volumes":
		w.in.Memory.Volumes = w.step(first, "FailedMount")
	case "image":
		w.in.Memory.Images[first] = w.step(plain[1], "ErrImagePull")
	case "start":
		w.in.Memory.Starts[first] = w.step(plain[1], "CreateContainerConfigError")
	case "stopping":
		w.in.Memory.Stops[w.id(first)] = Stop{Deadline: w.in.Now.Add(duration(named["in"]))}
	case "crash":
		w.in.Memory.Crashes[first] = Crash{Delay: duration(named["delay"]), Updated: w.in.Now.Add(-duration(named["ago"]))}
	case "started":
		w.in.Memory.Started[w.id(first)] = true
	case "unhealthy":
		w.in.Memory.Unhealthy[w.id(first)] = "Container " + first + " failed liveness probe, will be restarted"
	case "sandbox":
		n, _ := strconv.Atoi(first)
		w.sandbox(uint32(n), plain[1] == "ready")
	case "run", "made", "exit":
		n, _ := strconv.Atoi(plain[1])
		w.instance(words[0], first, uint32(n), named)
	case "was":
		n, _ := strconv.Atoi(named["restarts"])
		w.in.Pod.Status.ContainerStatuses = append(w.in.Pod.Status.ContainerStatuses,
			corev1.ContainerStatus{Name: first, ContainerID: "keelson://old", RestartCount: int32(n)})
	case "delete":
		w.in.Ending = &Ending{Since: w.in.Now.Add(-duration(named["ago"])), Grace: duration(named["grace"] + "s")}
	case "resources", "applied":
		shares, _ := strconv.ParseInt(named["shares"], 10, 64)
		memory, _ := strconv.ParseInt(named["memory"], 10, 64)
		r := Resources{Shares: shares, Memory: memory}
		if words[0] == "resources" {
			w.in.Resources = map[string]Resources{first: r}
		} else {
			w.in.Memory.Applied = map[string]Resources{w.id(first): r}
		}
	case "now":
		w.in.Now = w.in.Now.Add(duration(first))
	default:
		return fmt.Errorf("no command %q", words[0])
	}
	return nil
}

func (w *world) pod(named map[string]string) {
	if p := named["policy"]; p != "" {
		w.in.Pod.Spec.RestartPolicy = corev1.RestartPolicy(p)
	}
	if g, err := strconv.ParseInt(named["grace"], 10, 64); err == nil {
		w.in.Pod.Spec.TerminationGracePeriodSeconds = &g
	}
	if d, err := strconv.ParseInt(named["deadline"], 10, 64); err == nil {
		w.in.Pod.Spec.ActiveDeadlineSeconds = &d
		start := metav1.NewTime(w.in.Now)
		w.in.Pod.Status.StartTime = &start
	}
}

func (w *world) container(kind, name string, startup bool, all string) {
	c := corev1.Container{Name: name, Image: name + ":1"}
	if code, err := strconv.Atoi(all); err == nil {
		c.RestartPolicyRules = []corev1.ContainerRestartRule{{
			Action:    corev1.ContainerRestartRuleActionRestartAllContainers,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{int32(code)}},
		}}
	}
	if startup {
		c.StartupProbe = &corev1.Probe{}
	}
	s := &w.in.Pod.Spec
	switch kind {
	case "sidecar":
		always := corev1.ContainerRestartPolicyAlways
		c.RestartPolicy = &always
		s.InitContainers = append(s.InitContainers, c)
	case "init":
		s.InitContainers = append(s.InitContainers, c)
	case "ephemeral":
		s.EphemeralContainers = append(s.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon(c)})
	default:
		s.Containers = append(s.Containers, c)
	}
}

// step is a memory of a step; a failed one failed now for the first time and is due in 10 s.
func (w *world) step(state, reason string) Step {
	switch state {
	case "busy":
		return Step{Progress: Busy}
	case "done":
		return Step{Progress: Done}
	case "failed":
		return Step{Progress: Failed, Reason: reason, Message: "no luck", Failures: 1, RetryAt: w.in.Now.Add(10 * time.Second)}
	}
	return Step{}
}

func (w *world) id(name string) string {
	if c := w.in.Observed.Newest(name); c != nil {
		return c.ID
	}
	return ""
}

func (w *world) sandbox(attempt uint32, ready bool) {
	o := &w.in.Observed
	id := fmt.Sprintf("box%d", attempt)
	o.Sandboxes = slices.DeleteFunc(o.Sandboxes, func(s observe.Sandbox) bool { return s.ID == id })
	o.Sandboxes = append(o.Sandboxes, observe.Sandbox{ID: id, Attempt: attempt, Ready: ready, IPs: []string{"10.244.0.2"}})
	o.Sort()
}

func (w *world) instance(how, name string, attempt uint32, named map[string]string) {
	o := &w.in.Observed
	id := fmt.Sprintf("%s/%d", name, attempt)
	c := observe.Container{ID: id, Name: name, Attempt: attempt, Hash: Hash(Find(w.in.Pod, name)), CreatedAt: w.in.Now}
	if box := o.Sandbox(); box != nil {
		c.SandboxID = box.ID
	}
	if i := slices.IndexFunc(o.Containers, func(x observe.Container) bool { return x.ID == id }); i >= 0 {
		c.SandboxID, c.Round = o.Containers[i].SandboxID, o.Containers[i].Round
		o.Containers = slices.Delete(o.Containers, i, i+1)
	}
	if n, err := strconv.Atoi(named["round"]); err == nil {
		c.Round = uint32(n)
	}
	switch how {
	case "run":
		c.State = observe.Running
	case "exit":
		code, _ := strconv.Atoi(named["code"])
		c.State, c.ExitCode, c.FinishedAt = observe.Exited, int32(code), w.in.Now.Add(-duration(named["ago"]))
	}
	o.Containers = append(o.Containers, c)
	o.Sort()
}

// plan prints a decision.
func (w *world) plan() string {
	out := Plan(w.in)
	var b strings.Builder
	for _, a := range out.Actions {
		fmt.Fprintln(&b, a)
		if a.Crash.Delay > 0 {
			fmt.Fprintf(&b, "  next back-off %s\n", a.Crash.Delay)
		}
	}
	var names []string
	for n := range out.Waiting {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		fmt.Fprintf(&b, "%s waits: %s: %s\n", n, out.Waiting[n].Reason, out.Waiting[n].Message)
	}
	if !out.Wake.IsZero() {
		fmt.Fprintf(&b, "wake in %s\n", out.Wake.Sub(w.in.Now))
	}
	if out.End != nil {
		fmt.Fprintf(&b, "end: %s, grace %s\n", out.End.Reason, out.End.Grace)
	}
	if out.Finished {
		fmt.Fprintln(&b, "finished")
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}
