package volume

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/volume/mount"
)

// slow is a plugin that measures when it is told to.
type slow struct {
	emptyDir
	asked  chan struct{}
	answer chan uint64
}

func (slow) Serves(v *corev1.Volume) bool { return v.Name == "slow" }

func (s slow) Measure(context.Context, Request, Mounted) (Usage, error) {
	s.asked <- struct{}{}
	n := <-s.answer
	return Usage{Used: &n}, nil
}

func find(all []Measurement, name string) *Measurement {
	for i := range all {
		if all[i].Volume == name {
			return &all[i]
		}
	}
	return nil
}

// TestMeasure: a folder of the node's disk is measured by what is in it, a tmpfs by its filesystem; figures are kept for a while, and
// nothing is told of a path of the node or of a pod that is gone.
func TestMeasure(t *testing.T) {
	m, w := setup(t)
	p := pod(vol("disk", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		vol("memory", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}),
		vol("host", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: t.TempDir()}}))
	at := mustMount(t, m, p)
	write := func(volume string, bytes int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(at[volume].HostPath, "file"), make([]byte, bytes), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("disk", 1<<20)
	write("memory", 2<<20)
	all := m.Measure(t.Context())[p.UID]
	disk, memory := find(all, "disk"), find(all, "memory")
	if len(all) != 2 || disk == nil || memory == nil {
		t.Fatalf("measured %+v", all)
	}
	if *disk.Used < 1<<20 || *disk.Used > 2<<20 || *disk.InodesUsed != 2 || *disk.Capacity <= *disk.Used {
		t.Errorf("disk: %d bytes, %d inodes of %d bytes", *disk.Used, *disk.InodesUsed, *disk.Capacity)
	}
	if *memory.Used != 2<<20 || *memory.Available != *memory.Capacity-*memory.Used {
		t.Errorf("memory: %d used, %d left of %d", *memory.Used, *memory.Available, *memory.Capacity)
	}
	write("memory", 3<<20)
	if again := find(m.Measure(t.Context())[p.UID], "memory"); *again.Used != 2<<20 {
		t.Errorf("measured anew at once: %d", *again.Used)
	}
	w.lock()
	w.now = w.now.Add(measureEvery)
	w.mu.Unlock()
	if again := find(m.Measure(t.Context())[p.UID], "memory"); *again.Used != 3<<20 {
		t.Errorf("not measured anew: %d", *again.Used)
	}
	if err := m.Unmount(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	if left := m.Measure(t.Context()); len(left) != 0 {
		t.Errorf("of a pod that is gone: %+v", left)
	}
}

// TestMeasure_Hangs: a volume that does not answer holds up nobody twice, and no other volume; it is asked once until it answers.
func TestMeasure_Hangs(t *testing.T) {
	m, w := setup(t)
	s := slow{asked: make(chan struct{}, 10), answer: make(chan uint64)}
	m.plugins = append([]Plugin{s}, m.plugins...)
	p := pod(vol("slow", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), vol("quick", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}))
	mustMount(t, m, p)
	for range 5 { // were each to wait for it, the test would not end: nobody answers
		all := m.Measure(t.Context())[p.UID]
		if find(all, "quick") == nil || find(all, "slow") != nil {
			t.Fatalf("measured %+v", all)
		}
		w.lock()
		w.now = w.now.Add(2 * measureEvery)
		w.mu.Unlock()
	}
	if len(s.asked) != 1 {
		t.Errorf("asked %d times without an answer", len(s.asked))
	}
	s.answer <- 7
	for deadline := time.Now().Add(time.Minute); ; {
		if got := find(m.Measure(t.Context())[p.UID], "slow"); got != nil && *got.Used == 7 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("its answer is not told")
		}
	}
	// An answer that comes after the volume's end is nobody's.
	if err := m.Unmount(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	close(s.answer)
	if left := m.Measure(t.Context()); len(left) != 0 {
		t.Errorf("of a pod that is gone: %+v", left)
	}
}

// TestMeasure_Claim: what is behind a claim is told under the claim's name, a path of the node too.
func TestMeasure_Claim(t *testing.T) {
	m, _ := setup(t)
	p := claimed(m, "uid-1", &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: t.TempDir()}}}})
	mustMount(t, m, p)
	all := m.Measure(t.Context())[p.UID]
	if len(all) != 1 || all[0].Claim != "claim" || all[0].Capacity == nil || *all[0].Capacity == 0 {
		t.Errorf("measured %+v", all)
	}
}

// TestSize: what a tree takes is counted without its links' targets, once for each file, and to the bottom.
func TestSize(t *testing.T) {
	root := t.TempDir()
	big := filepath.Join(t.TempDir(), "big")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(big, make([]byte, 8<<20), 0o600))
	must(os.Symlink(big, filepath.Join(root, "link")))
	must(os.Symlink(filepath.Dir(big), filepath.Join(root, "folder")))
	must(os.WriteFile(filepath.Join(root, "one"), make([]byte, 1<<20), 0o600))
	must(os.Link(filepath.Join(root, "one"), filepath.Join(root, "two")))
	deep := filepath.Join(root, "a", "b", "c")
	must(os.MkdirAll(deep, 0o700))
	must(os.WriteFile(filepath.Join(deep, "file"), make([]byte, 1<<20), 0o600))
	bytes, inodes, err := mount.Size(root)
	if err != nil || bytes < 2<<20 || bytes > 3<<20 || inodes != 8 { // three folders and the root, two links, two files
		t.Errorf("%d bytes, %d inodes, %v", bytes, inodes, err)
	}
	if bytes, inodes, err := mount.Size(filepath.Join(root, "one")); err != nil || bytes < 1<<20 || inodes != 1 {
		t.Errorf("a file: %d bytes, %d inodes, %v", bytes, inodes, err)
	}
	if bytes, inodes, err := mount.Size(filepath.Join(root, "none")); bytes != 0 || inodes != 0 || err != nil {
		t.Errorf("nothing: %d bytes, %d inodes, %v", bytes, inodes, err)
	}
}
