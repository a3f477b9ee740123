package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/volume/mount"
)

const (
	// measureEvery is how old a measurement may become before somebody who asks has it made anew: upstream's.
	measureEvery = time.Minute
	// measureWait is how long one measurement may hold up who asks. The next to ask are not held up by it.
	measureWait = time.Second
)

// ErrUnmeasured means that nobody can tell what a volume holds.
var ErrUnmeasured = errors.New("volumes of this kind are not measured")

// Usage is what a volume holds and has left, in bytes and files; nil for what is not known.
type Usage struct {
	Capacity, Available, Used      *uint64
	Inodes, InodesFree, InodesUsed *uint64
}

// Measured is a Plugin that can tell what a volume holds.
type Measured interface {
	Plugin
	// Measure looks at a volume that Mount made ready for the request. It may hang, as the mount or the driver behind it may;
	// ErrUnmeasured if there is nothing to know.
	Measure(ctx context.Context, r Request, m Mounted) (Usage, error)
}

// Measurement is the newest that is known of a pod's volume.
type Measurement struct {
	Volume string // the pod's name of it
	Claim  string // of the pod's namespace; "" for a volume without
	At     time.Time
	Usage
}

// gauge is a mounted volume that can be measured. Its fields but request, mounted and plugin are guarded by meters.mu.
type gauge struct {
	plugin  Measured
	request Request
	mounted Mounted

	last  *Measurement  // nil before the first, and of a volume of which nothing is known
	tried time.Time     // when the newest measurement began, by the Manager's clock
	began time.Time     // the same by the machine's, for measureWait
	done  chan struct{} // closed when it ended
}

// meters are the gauges of all pods.
type meters struct {
	mu     sync.Mutex
	gauges map[types.UID]map[string]*gauge // by the pod's name of the volume; guarded by mu
}

// note keeps a mounted volume for Measure.
func (m *Manager) note(p Plugin, r Request, at Mounted) {
	measured, ok := p.(Measured)
	if !ok {
		return
	}
	m.meters.mu.Lock()
	defer m.meters.mu.Unlock()
	of := m.meters.gauges[r.Pod.UID]
	if of == nil {
		of = map[string]*gauge{}
		m.meters.gauges[r.Pod.UID] = of
	}
	if of[r.Volume.Name] == nil { // a refresh measures nothing anew
		of[r.Volume.Name] = &gauge{plugin: measured, request: r, mounted: at}
	}
}

// Measure tells what the pods' volumes hold. A figure is at most a minute old, unless the volume's filesystem or driver hangs: then it is the
// last one that was had, or missing, and nobody waits for it twice.
func (m *Manager) Measure(ctx context.Context) map[types.UID][]Measurement {
	var wait []*gauge
	m.meters.mu.Lock()
	for uid, of := range m.meters.gauges {
		for name, g := range of {
			busy := g.done != nil && !closed(g.done)
			if now := m.deps.Now(); !busy && (g.done == nil || now.Sub(g.tried) >= measureEvery) {
				g.tried, g.began, g.done = now, time.Now(), make(chan struct{})
				go m.measure(uid, name, g, g.done) // ends with its answer: a system call that hangs cannot be called back
			}
			wait = append(wait, g)
		}
	}
	m.meters.mu.Unlock()
	for _, g := range wait {
		m.meters.mu.Lock()
		done, left := g.done, measureWait-time.Since(g.began)
		m.meters.mu.Unlock()
		timer := time.NewTimer(max(left, 0))
		select {
		case <-done:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	out := map[types.UID][]Measurement{}
	m.meters.mu.Lock()
	defer m.meters.mu.Unlock()
	for uid, of := range m.meters.gauges {
		for _, g := range of {
			if g.last != nil {
				out[uid] = append(out[uid], *g.last)
			}
		}
	}
	return out
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// measure makes one measurement. Of a volume that went meanwhile it is dropped: what was measured is what was below it.
func (m *Manager) measure(uid types.UID, name string, g *gauge, done chan struct{}) {
	defer close(done)
	used, err := g.plugin.Measure(context.Background(), g.request, g.mounted)
	if err != nil {
		if !errors.Is(err, ErrUnmeasured) {
			m.cfg.Log.Debug("measure a volume", "pod", uid, "volume", name, "err", err)
		}
		return
	}
	got := &Measurement{Volume: name, At: m.deps.Now(), Usage: used}
	if c := g.request.Claim; c != nil {
		got.Claim = c.Name
	}
	m.meters.mu.Lock()
	defer m.meters.mu.Unlock()
	if m.meters.gauges[uid][name] == g {
		g.last = got
	}
}

// forget drops a pod's gauges before its volumes go.
func (m *Manager) forget(uid types.UID) {
	m.meters.mu.Lock()
	defer m.meters.mu.Unlock()
	delete(m.meters.gauges, uid)
}

// filesystem is what statfs says of the filesystem at path, or of the project quota that path is held to.
func filesystem(path string) (Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Usage{}, fmt.Errorf("size of the filesystem at %s: %w", path, err)
	}
	size := uint64(st.Bsize)
	capacity, available, used := st.Blocks*size, st.Bavail*size, (st.Blocks-st.Bfree)*size
	files, free, taken := st.Files, st.Ffree, st.Files-st.Ffree
	return Usage{Capacity: &capacity, Available: &available, Used: &used, Inodes: &files, InodesFree: &free, InodesUsed: &taken}, nil
}

// folder is what a volume that may share its filesystem with others takes of it.
func folder(dir string) (Usage, error) {
	out, err := filesystem(dir)
	if err != nil {
		return out, err
	}
	if own, err := mount.Is(dir); own || err != nil {
		return out, err
	}
	used, files, err := mount.Size(dir)
	out.Used, out.InodesUsed = &used, &files
	return out, err
}

// blockDevice is the size of a block device.
func blockDevice(path string) (Usage, error) {
	f, err := os.Open(path)
	if err != nil {
		return Usage{}, err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	size := uint64(end)
	return Usage{Capacity: &size}, err
}

// Measure implements Measured.
func (emptyDir) Measure(_ context.Context, r Request, _ Mounted) (Usage, error) { return folder(r.Dir) }

// Measure implements Measured.
func (*content) Measure(_ context.Context, r Request, _ Mounted) (Usage, error) { return folder(r.Dir) }

// Measure implements Measured. Of the node's own paths nothing is told, as upstream.
func (hostPath) Measure(_ context.Context, r Request, m Mounted) (Usage, error) {
	switch {
	case r.Persistent == nil:
		return Usage{}, ErrUnmeasured
	case m.Block:
		return blockDevice(m.HostPath)
	}
	return filesystem(m.HostPath)
}

// Measure implements Measured.
func (*localVolume) Measure(_ context.Context, _ Request, m Mounted) (Usage, error) {
	if m.Block {
		return blockDevice(m.HostPath)
	}
	return filesystem(m.HostPath)
}
