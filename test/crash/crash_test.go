package crash

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	_ "keelson.dev/keelson/cri" // with all of its parts, for their points
	"keelson.dev/keelson/runtime/failpoint"
	_ "keelson.dev/keelson/runtime/keeper/server"
	"keelson.dev/keelson/test/lab"
)

var (
	full = flag.Bool("full", false, "all of the matrix: who else dies at each point too, and in the second container's life")
	only = flag.String("point", "", "only the points that begin so")
)

// victims are who dies at a point.
type victims string

const (
	self  victims = "self"  // the program that comes to it
	other victims = "other" // the other program, while this one stands there
	both  victims = "both"
)

// keepers says whether a point is in the keeper's program.
func keepers(point string) bool {
	return strings.HasPrefix(point, "keeper.") && !strings.HasPrefix(point, "keeper.spawn.")
}

func need(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it starts a container runtime")
	}
	if _, err := lab.Binary(); err != nil {
		t.Skip(err)
	}
}

// stepLimit is how long a step may take with all its tries.
const stepLimit = 90 * time.Second

// pointLimit is how long after the scenario's end the daemon may take to come to a point.
const pointLimit = 20 * time.Second

// TestCrash is the matrix.
func TestCrash(t *testing.T) {
	need(t)
	pool := make(chan *node, 2)
	for range cap(pool) {
		n := fresh(t)
		pool <- n
	}
	t.Cleanup(func() {
		for range cap(pool) {
			(<-pool).discard(context.WithoutCancel(t.Context()))
		}
	})
	var reached map[string][]string
	func() {
		first := <-pool
		defer func() { pool <- first }()
		reached = reference(t, first)
	}()
	for _, point := range failpoint.Names() {
		if strings.HasPrefix(point, "test.") || !strings.HasPrefix(point, *only) {
			continue
		}
		for _, in := range reached[point] {
			for _, v := range []victims{self, other, both} {
				if !*full && (v != self || in != reached[point][0] && !keepers(point)) {
					continue
				}
				name := point + "/" + string(v)
				if in != reached[point][0] {
					name += "/" + in
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					n := <-pool
					defer func() { pool <- n }()
					c := cell{T: t, node: n, point: point, victims: v, in: in, first: in == reached[point][0]}
					c.run()
					if t.Failed() {
						t.Logf("the daemon's log:\n%s", n.Log())
						n.discard(context.WithoutCancel(t.Context()))
						n = fresh(t)
					}
				})
			}
		}
	}
}

// TestUninstall: it ends containers wherever their client had put them, also if nobody lives who knows them.
func TestUninstall(t *testing.T) {
	need(t)
	n, err := newNode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l, removed := newLife(n, "uninstalled"), false
	defer func() {
		if !removed {
			n.discard(context.WithoutCancel(t.Context()))
		}
	}()
	for _, s := range steps[:slices.IndexFunc(steps, func(s step) bool { return s.name == "exec" })] {
		if err := s.do(l, t.Context()); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	root, before := n.cgroupRoot(), state{}
	n.lookAtProcesses(before)
	if err := errors.Join(n.Kill(), n.killKeeper()); err != nil {
		t.Fatal(err)
	}
	removed = true
	n.discard(t.Context())
	for name, what := range before {
		pid, is := strings.CutPrefix(name, "process ")
		if id, err := strconv.Atoi(pid); is && err == nil && processState(id) != "" && processState(id) != "Z" {
			t.Errorf("it left %s: %s", name, what)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		if left, _ := filepath.Glob(pattern + root); len(left) > 0 {
			t.Errorf("it left %v", left)
		}
	}
}

func fresh(t *testing.T) *node {
	t.Helper()
	n, err := newNode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n.settle(t)
	return n
}

// settle takes the state that all passes must come back to: the one that does
// not change any more.
func (n *node) settle(t *testing.T) {
	t.Helper()
	last, same := state{}, 0
	eventually(t, "a new node comes to rest", func() string {
		now := n.look()
		if same++; !maps.Equal(now, last) {
			last, same = now, 0
		}
		if same < 20 {
			return "still changing"
		}
		return ""
	})
	n.baseline = last
}

// reference goes through the scenario without a crash and says in which step
// each point is reached first; and whether in that of the second container
// too, which, unlike the first one, ends at once and by itself.
func reference(t *testing.T, n *node) map[string][]string {
	t.Helper()
	if err := os.Truncate(n.trace(), 0); err != nil {
		t.Fatal(err)
	}
	l, seen := newLife(n, "reference"), 0
	reached := map[string][]string{}
	note := func(step string) {
		text, err := os.ReadFile(n.trace())
		if err != nil {
			t.Fatal(err)
		}
		for _, point := range strings.Fields(string(text)[seen:]) {
			if in := reached[point]; len(in) == 0 || step == "second" && in[len(in)-1] != step {
				reached[point] = append(in, step)
			}
		}
		seen = len(text)
	}
	for _, s := range steps {
		if err := s.do(l, t.Context()); err != nil {
			t.Fatalf("without a crash, %s: %v\n%s", s.name, err, n.Log())
		}
		if s.name == "stop" {
			l.checkEnds(t, "")
		}
		note(s.name)
	}
	// What the daemon does in its own time may come after the scenario's end.
	eventually(t, "the scenario comes to every point", func() string {
		note(steps[len(steps)-1].name)
		return strings.Join(slices.DeleteFunc(failpoint.Names(), func(point string) bool {
			return strings.HasPrefix(point, "test.") || len(reached[point]) > 0
		}), ", ")
	})
	n.checkNothingLeft(t)
	if t.Failed() {
		t.FailNow()
	}
	return reached
}

// cell is one point and who dies there.
type cell struct {
	*testing.T
	*node
	point   string
	victims victims
	in      string        // the step that comes to the point
	first   bool          // and none before it does
	done    chan struct{} // closed when who is to die has died
}

func (c *cell) run() {
	l := newLife(c.node, strings.NewReplacer(".", "-", "/", "-", " ", "-").Replace(c.point+"-"+string(c.victims)+"-"+c.in))
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	mine := slices.DeleteFunc(slices.Clone(steps), func(s step) bool { return restarts(s.name) && s.name != c.in })
	arm := slices.IndexFunc(mine, func(s step) bool { return s.name == c.in })
	if c.first && !restarts(c.in) {
		// What the daemon does in its own time it may do sooner than in the reference, two steps at the most: it drops a
		// stopped pod's network while the pod and its images are removed.
		arm = max(0, arm-2)
	}
	for i, s := range mine {
		if i == arm {
			c.armed(ctx)
		}
		if err := c.try(ctx, l, s); err != nil {
			c.Errorf("%s: %v", s.name, err)
			return
		}
		if s.name == "stop" {
			l.checkEnds(c.T, c.victims)
		}
	}
	// What the daemon does in its own time may come to the point after the scenario's end.
	select {
	case <-c.done:
	case <-time.After(pointLimit):
		c.Errorf("nothing happened at the point")
	}
	c.checkNothingLeft(c.T)
}

// try makes a step until it succeeds.
func (c *cell) try(ctx context.Context, l *life, s step) error {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	var last error
	for {
		err := s.do(l, ctx)
		if err == nil || errors.As(err, &fatal{}) {
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(last, err)
		}
		if last = err; status.Code(err) != codes.Unavailable {
			c.Logf("%s: %v", s.name, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// armed orders the point and watches for what comes of it.
func (c *cell) armed(ctx context.Context) {
	action := "stop"
	if c.victims == self {
		action = "exit"
	}
	for _, old := range c.hits() {
		if err := os.Remove(old); err != nil {
			c.Fatal(err)
		}
	}
	if err := c.arm(c.point + "=" + action); err != nil {
		c.Fatal(err)
	}
	c.done = make(chan struct{})
	go func() { defer close(c.done); c.strike(ctx) }() // ends with ctx at the latest
	c.Cleanup(func() { <-c.done })
}

// hits are the orders that were carried out, by whom.
func (c *cell) hits() []string {
	found, _ := filepath.Glob(c.points() + ".hit.*")
	return found
}

// strike waits until a program is at the point, kills whom it is to kill, and
// starts the daemon again.
func (c *cell) strike(ctx context.Context) {
	at := 0
	for at == 0 {
		if ctx.Err() != nil {
			return
		}
		time.Sleep(time.Millisecond) // a file: there is nothing to wait on
		for _, hit := range c.hits() {
			at, _ = strconv.Atoi(strings.TrimPrefix(filepath.Ext(hit), "."))
		}
	}
	var err error
	if c.victims == self {
		err = kill(at)
	} else {
		err = c.kill(at)
	}
	dies := c.victims == both || keepers(c.point) == (c.victims == other) // the daemon does
	if err == nil && dies && (!restarts(c.in) || c.in == "folder") {      // in the others the scenario waits for it while it starts
		err = c.node.start(ctx)
	}
	if err != nil && ctx.Err() == nil {
		c.Error(err)
	}
}

// kill kills the other program than the one that stands at the point, and that
// one too if it is to.
func (c *cell) kill(at int) (err error) {
	for processState(at) != "T" && processState(at) != "" {
		time.Sleep(time.Millisecond)
	}
	if keepers(c.point) {
		err = c.Kill()
	} else {
		err = c.killKeeper()
	}
	if c.victims == both {
		return errors.Join(err, kill(at))
	}
	return errors.Join(err, syscall.Kill(at, syscall.SIGCONT))
}

// checkEnds checks exit codes and logs. Only where both programs died may a
// code be lost, and the last lines: those of a container which ended while
// nobody lived to see it, and with which its pipes went.
func (l *life) checkEnds(t *testing.T, dead victims) {
	t.Helper()
	keeps, err := l.status(t.Context(), l.keeps)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := l.status(t.Context(), l.ends)
	if err != nil {
		t.Fatal(err)
	}
	unseen := func(st *runtimeapi.ContainerStatus) bool {
		return dead == both && st.Reason == "Unknown" && st.ExitCode == 255
	}
	if keeps.ExitCode != 33 && !unseen(keeps) {
		t.Errorf("container keeps ended with %d (%s: %s), want 33", keeps.ExitCode, keeps.Reason, keeps.Message)
	}
	if ends.ExitCode != 7 && !unseen(ends) {
		t.Errorf("container ends ended with %d (%s: %s), want 7", ends.ExitCode, ends.Reason, ends.Message)
	}
	l.checkLog(t, l.keeps, keeps.ExitCode == 33)
	l.checkLog(t, l.ends, ends.ExitCode == 7 && dead != both)
}

// checkLog checks that every line is there once, in order, and the last one
// too if whole.
func (l *life) checkLog(t *testing.T, m *member, whole bool) {
	t.Helper()
	lines, err := output(l.pod.LogDirectory, l.logOf(m))
	if err != nil {
		t.Error(err)
		return
	}
	n := len(lines)
	if m == l.keeps && whole {
		if n == 0 || lines[n-1] != "bye" {
			t.Errorf("container keeps: its last words are missing (%d lines)", n)
		}
		n--
	}
	for i := range n {
		if want := fmt.Sprint("line ", i+1); lines[i] != want {
			t.Errorf("container %s: line %d of the log is %q", m.name, i+1, lines[i])
			return
		}
	}
	if m == l.keeps && whole && n%block != 0 || m == l.ends && whole && n != endsLines {
		t.Errorf("container %s: %d lines in the log", m.name, n)
	}
}
