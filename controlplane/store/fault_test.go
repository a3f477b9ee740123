package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/storage"
)

// syncs stands between this process and its disk: every fsync and fdatasync asks it, by seccomp's notifications, before the kernel
// does it. There is no way back for the process, so that tests use one of their own (TestFaulty).
type syncs struct {
	listener int
	mu       sync.Mutex
	what     func(file string) verdict // of the file that is synced
	held     []uint64
}

type verdict int

const (
	pass verdict = iota
	fail         // with EIO
	hold         // until release
)

// notification and answer are the kernel's struct seccomp_notif and seccomp_notif_resp (linux/seccomp.h).
type notification struct {
	ID         uint64
	Pid, Flags uint32
	Nr         int32
	Arch       uint32
	IP         uint64
	Args       [6]uint64
}

type answer struct {
	ID    uint64
	Val   int64
	Error int32
	Flags uint32
}

const (
	ioctlReceive = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	ioctlSend    = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	goOn         = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

// interpose puts itself before all threads of the process, for good.
func interpose() (*syncs, error) {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FDATASYNC, Jt: 2},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FSYNC, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_TSYNC|unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return nil, fmt.Errorf("seccomp: %w", errno)
	}
	s := &syncs{listener: int(fd), what: func(string) verdict { return pass }}
	go s.run() // ends with the process
	return s, nil
}

func (s *syncs) run() {
	for {
		var n notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), ioctlReceive, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // interrupted, or the caller was: it asks again
		}
		file, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n.Args[0]))
		s.mu.Lock()
		switch s.what(file) {
		case pass:
			s.send(answer{ID: n.ID, Flags: goOn})
		case fail:
			s.send(answer{ID: n.ID, Error: -int32(unix.EIO)})
		case hold:
			s.held = append(s.held, n.ID)
		}
		s.mu.Unlock()
	}
}

func (s *syncs) send(a answer) {
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), ioctlSend, uintptr(unsafe.Pointer(&a)))
}

func (s *syncs) judge(what func(string) verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.what = what
}

// holding is how many syncs wait.
func (s *syncs) holding() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held)
}

func (s *syncs) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.what = func(string) verdict { return pass }
	for _, id := range s.held {
		s.send(answer{ID: id, Flags: goOn})
	}
	s.held = nil
}

// isLog tells the log from the database's file, whose sync may come at any time.
func isLog(file string) bool { return strings.HasSuffix(file, ".wal") }

const (
	faultEnv = "KEELSON_TEST_FAULT"
	faultDir = "KEELSON_TEST_FAULT_DIR"
	acked    = "ACKED"
	noFilter = "NO FILTER"
)

// faulty runs this test's program anew with the fault and returns what it said, and how it ended.
func faulty(t *testing.T, fault, dir string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFaulty$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), faultEnv+"="+fault, faultDir+"="+dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if strings.Contains(out.String(), noFilter) {
		t.Skip("this kernel lets nobody stand before its system calls: ", out.String())
	}
	return out.String(), err
}

// TestFaulty is the process with the fault, not a test.
func TestFaulty(t *testing.T) {
	fault := os.Getenv(faultEnv)
	if fault == "" {
		t.Skip("runs as a process of other tests")
	}
	s, err := Open(Config{Dir: os.Getenv(faultDir), Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	<-s.Ready()
	gate, err := interpose()
	if err != nil {
		fmt.Println(noFilter, err)
		return
	}
	st := configMaps(t, s)
	for i := range 10 {
		if err := create(st, fmt.Sprintf("c%d", i)); err != nil {
			t.Fatal(err)
		}
		fmt.Println(acked, i)
	}
	map[string]func(*testing.T, *Store, storage.Interface, *syncs){"eio": failOnce, "slow": holdLong}[fault](t, s, st, gate)
}

func create(st storage.Interface, name string) error {
	return st.Create(context.Background(), "/configmaps/n/"+name, configMap(name, 10), &corev1.ConfigMap{}, 0)
}

func failOnce(_ *testing.T, _ *Store, st storage.Interface, gate *syncs) {
	failed := false
	gate.judge(func(file string) verdict {
		if failed || !isLog(file) {
			return pass
		}
		failed = true
		return fail
	})
	if err := create(st, "unsynced"); err == nil {
		fmt.Println(acked, "unsynced")
	}
	time.Sleep(time.Minute) // the process ends before, or the test says that it did not
	fmt.Println("STILL ALIVE")
}

// TestHostile_RA5: a sync of the log fails once. What was not synced is not acknowledged, the process ends at once and says why, and the
// second sync, which would succeed, is not tried. What was acknowledged is there.
func TestHostile_RA5(t *testing.T) {
	dir := t.TempDir()
	out, err := faulty(t, "eio", dir)
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.ExitCode() != 1 || strings.Contains(out, "STILL ALIVE") {
		t.Fatalf("ended with %v:\n%s", err, out)
	}
	if !strings.Contains(out, "the database cannot go on") || !strings.Contains(out, "input/output error") {
		t.Errorf("it does not say why:\n%s", out)
	}
	if strings.Contains(out, acked+" unsynced") || !strings.Contains(out, acked+" 9") {
		t.Errorf("acknowledged:\n%s", out)
	}
	if n := count(t, configMaps(t, open(t, dir))); n != 10 && n != 11 { // the last reached the file, or not
		t.Errorf("%d objects, 10 were acknowledged", n)
	}
}

func holdLong(t *testing.T, s *Store, st storage.Interface, gate *syncs) {
	term, leader := s.etcd.Server.Term(), s.etcd.Server.Leader()
	gate.judge(func(file string) verdict {
		if isLog(file) || filepath.Base(file) == "disk-probe" {
			return hold
		}
		return pass
	})
	written := make(chan error, 1)
	go func() { written <- create(st, "late") }()
	until(t, "the log waits for the disk", func() bool { return gate.holding() > 0 })
	// Longer than an election would take; reads go on all the while.
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		var one corev1.ConfigMap
		if err := st.Get(ctx, "/configmaps/n/c1", storage.GetOptions{}, &one); err != nil {
			t.Fatalf("get: %v", err)
		}
		if n := count(t, st); n != 10 {
			t.Fatalf("%d objects", n)
		}
		if err := s.Healthy(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	select {
	case err := <-written:
		t.Fatalf("acknowledged before it was synced: %v", err)
	default:
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Disk(ctx); err == nil || !strings.Contains(err.Error(), "does not finish a sync") {
		t.Errorf("the disk is not seen to be slow: %v", err)
	}
	gate.release()
	if err := <-written; err != nil {
		t.Errorf("when the disk is back: %v", err)
	}
	if s.etcd.Server.Term() != term || s.etcd.Server.Leader() != leader {
		t.Errorf("term %d, leader %x; was %d, %x", s.etcd.Server.Term(), s.etcd.Server.Leader(), term, leader)
	}
	until(t, "the disk is well again", func() bool { return s.Disk(t.Context()) == nil })
	_ = s.Close()
}

// TestHostile_RA7: the disk does not come back from a sync for longer than an election takes. Nothing ends and nobody steps down, reads are
// answered, the slow disk can be seen, and the write is acknowledged when it is synced.
func TestHostile_RA7(t *testing.T) {
	if out, err := faulty(t, "slow", t.TempDir()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
