package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRemoveLogs: of the logs' folder and of the links beside it goes what is of our pods, and what others have there stays.
func TestRemoveLogs(t *testing.T) {
	dir := t.TempDir()
	p := places{PodLogs: filepath.Join(dir, "pods")}
	links, pod := filepath.Join(dir, "containers"), filepath.Join(p.PodLogs, "default_a_12345678-1234-1234-1234-123456789012")
	other := filepath.Join(links, "other.log")
	place := func() {
		t.Helper()
		for _, d := range []string{links, pod} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(filepath.Join(pod, "c", "0.log"), filepath.Join(links, "a.log")); err != nil {
			t.Fatal(err)
		}
	}
	place()
	if err := os.Symlink("/elsewhere", other); err != nil {
		t.Fatal(err)
	}
	if err := removeLogs(p); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(links); err != nil || len(left) != 1 || left[0].Name() != "other.log" || exists(pod) {
		t.Errorf("left are %v, %v, the pod's logs: %v", left, err, exists(pod))
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	place()
	if err := removeLogs(p); err != nil || exists(links) {
		t.Errorf("%v, the empty folder is there: %v", err, exists(links))
	}
}

// The folder of the node plugins' socket goes, unless another runtime's socket is in it.
func TestRemoveSocketFolder(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nri", "nri.sock")
	if err := os.Mkdir(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if removeSocketFolder(socket); !exists(socket) {
		t.Error("another runtime's socket is gone")
	}
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	if removeSocketFolder(socket); exists(filepath.Dir(socket)) {
		t.Error("the empty folder is left")
	}
	removeSocketFolder("")
}
