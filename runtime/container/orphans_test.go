package container_test

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/container"
	"keelson.dev/keelson/runtime/runtimetest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	runtimetest.RemoveRootfs()
	if os.Geteuid() == 0 {
		runtimetest.RemoveKeeper()
	}
	os.Exit(code)
}

// oldKernel returns a node whose lost children come to this process, as on kernels that do not tell how a stranger's child ended.
func oldKernel(t *testing.T) *runtimetest.Node {
	t.Helper()
	runtimetest.Need(t)
	container.ForceOrphans(true)
	t.Cleanup(func() {
		container.ForceOrphans(false)
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	})
	return runtimetest.New(t)
}

// TestOrphansOnOldKernels kills the keeper and lets containers end as children
// of this process.
func TestOrphansOnOldKernels(t *testing.T) {
	n := oldKernel(t)
	for i := range 3 {
		id := fmt.Sprint("c", i)
		n.Run(n.Sh(id, fmt.Sprintf("while ! [ -e /tmp/go ]; do sleep 0.01; done; exit %d", 70+i)))
	}
	keeper := n.KeeperPid()
	if err := unix.Kill(keeper, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		id := fmt.Sprint("c", i)
		s, err := n.State(id)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/tmp/go", s.Pid), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if s := n.Await(id); s.ExitCode != int32(70+i) {
			t.Errorf("%s: %+v", id, s)
		}
	}
}

// TestExecOnOldKernels kills the keeper under an exec that ends as a child of
// this process.
func TestExecOnOldKernels(t *testing.T) {
	n := oldKernel(t)
	n.Run(n.Sh("c", "sleep 100000"))
	n.KillDuringExec("c")
}
