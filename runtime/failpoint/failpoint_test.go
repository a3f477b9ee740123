package failpoint

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

var here, there = New("test.here"), New("test.there")

func TestMain(m *testing.M) {
	if os.Getenv("FAILPOINT_CHILD") != "" {
		here.Reach()
		here.Reach()
		os.Exit(3)
	}
	os.Exit(m.Run())
}

func TestNothingIsOn(t *testing.T) {
	configure("")
	here.Reach()
	if err := here.Err(); err != nil {
		t.Error(err)
	}
	if n := testing.AllocsPerRun(100, here.Reach); n != 0 {
		t.Errorf("a point that is off allocates %v times", n)
	}
	if names := Names(); !slices.Contains(names, "test.here") || !slices.IsSorted(names) {
		t.Errorf("names: %q", names)
	}
}

func TestErrorAtTheNthTime(t *testing.T) {
	configure("test.here=error:2, test.there=error")
	defer configure("")
	for i, want := range []bool{false, true, false} {
		if err := here.Err(); errors.Is(err, ErrInjected) != want {
			t.Errorf("visit %d: %v", i+1, err)
		}
	}
	if err := there.Err(); !errors.Is(err, ErrInjected) {
		t.Error(err)
	}
}

func TestFileIsReadAnew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "points")
	configure("@" + file)
	defer configure("")
	if err := here.Err(); err != nil {
		t.Errorf("without a file: %v", err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, "test.here=error")
	write(file+".trace", "")
	if err := here.Err(); !errors.Is(err, ErrInjected) {
		t.Errorf("ordered: %v", err)
	}
	there.Reach()
	if err := here.Err(); err != nil {
		t.Errorf("carried out twice: %v", err)
	}
	if hit, err := os.ReadFile(fmt.Sprint(file, ".hit.", os.Getpid())); string(hit) != "test.here=error" {
		t.Errorf("the order that was carried out: %q, %v", hit, err)
	}
	if trace, _ := os.ReadFile(file + ".trace"); string(trace) != "test.here\ntest.there\ntest.here\n" {
		t.Errorf("trace: %q", trace)
	}
}

// TestExitAndStop has another process end, and stop, at its second visit.
func TestExitAndStop(t *testing.T) {
	child := func(spec string) *exec.Cmd {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "FAILPOINT_CHILD=1", Variable+"="+spec)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	cmd := child("test.here=exit:2")
	_ = cmd.Wait()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Errorf("exit: %v", cmd.ProcessState)
	}
	cmd = child("test.here=stop:2")
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &ws, syscall.WUNTRACED, nil); err != nil || !ws.Stopped() {
		t.Errorf("stop: %v, %v", ws, err)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("continued: %v", err)
	}
}
