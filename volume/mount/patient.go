package mount

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/sys/mountinfo"
)

// ErrHung means that a filesystem does not answer: its server, a FUSE program or an NFS host, hangs or is out of reach.
var ErrHung = errors.New("the filesystem does not answer; its server (FUSE, NFS) hangs or is gone")

// patience is how long a filesystem may take to answer.
const patience = 10 * time.Second

// hung are the looks that have not come back, by path: there is one for each at most, whoever asks, so that a dead server costs
// one thread.
var hung = struct {
	mu   sync.Mutex
	path map[string]chan struct{} // closed when it is back
}{path: map[string]chan struct{}{}}

// Patient runs look, which the kernel may hold up as long as the filesystem at path says nothing, for a while at most; after that it returns
// ErrHung, or the context's cause if that ends before. Then look runs on, and late gets what it returns without an error; late may be nil.
//
// On a node that has filesystems with servers, another program looks first: a thread that the kernel holds up cannot be killed, and a process
// that has one keeps its ports and locks after its end, so that none could take its place.
func Patient[T any](ctx context.Context, path string, look func() (T, error), late func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	limit := time.NewTimer(patience)
	defer limit.Stop()
	gone := func() (T, error) {
		if ctx.Err() != nil {
			return none, context.Cause(ctx)
		}
		return none, fmt.Errorf("mount: look at %s: %w", path, ErrHung)
	}
	back := make(chan struct{})
	for {
		hung.mu.Lock()
		other := hung.path[path]
		if other == nil {
			hung.path[path] = back
		}
		hung.mu.Unlock()
		if other == nil {
			break
		}
		select {
		case <-other:
		case <-limit.C:
			return gone()
		case <-ctx.Done():
			return gone()
		}
	}
	got := make(chan result)
	abandoned := make(chan struct{})
	probing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() { // ends when the filesystem answers, or is unmounted or aborted
		probe(probing, path)
		var v T
		err := probing.Err()
		if err == nil {
			v, err = look()
		}
		hung.mu.Lock()
		delete(hung.path, path)
		hung.mu.Unlock()
		close(back)
		select {
		case got <- result{v, err}:
		case <-abandoned:
			if err == nil && late != nil {
				late(v)
			}
		}
	}()
	select {
	case r := <-got:
		return r.value, r.err
	case <-limit.C:
	case <-ctx.Done():
	}
	close(abandoned)
	return gone()
}

// probe returns when a look at path has come back from where a server may be asked for it, whatever it found; its end may be awaited in vain.
func probe(ctx context.Context, path string) {
	served, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		kind, _, _ := strings.Cut(m.FSType, ".")
		there := slices.Contains([]string{"fuse", "nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "afs"}, kind)
		return !there, there
	})
	if err == nil && len(served) > 0 {
		_ = exec.CommandContext(ctx, "stat", "-L", "--", path).Run() // without the program the look goes unguarded
	}
}
