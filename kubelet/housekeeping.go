package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/observe"
)

// watchEvery is how often log sizes and the node's resources are looked at. The kernel has no event for "a file grew
// past a size" that would not also wake us at every write.
var watchEvery = 10 * time.Second // tests, which look when they say so, set it

// housekeeping starts what is done from time to time.
func (k *Kubelet) housekeeping(run func(string, func(context.Context) error)) {
	run("log rotation", func(ctx context.Context) error { return every(ctx, watchEvery, k.rotateLogs) })
	run("eviction", func(ctx context.Context) error { return every(ctx, watchEvery, k.checkPressure) })
	run("image collection", func(ctx context.Context) error { return every(ctx, imageEvery, k.collectImages) })
}

// every calls f each interval until ctx ends.
func every(ctx context.Context, interval time.Duration, f func(context.Context)) error {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			f(ctx)
		}
	}
}

// rotateLogs rotates the log of each running container that has grown too large.
func (k *Kubelet) rotateLogs(ctx context.Context) {
	for _, c := range k.parts.cache.Known() {
		if c.State != observe.Running || c.LogPath == "" {
			continue
		}
		st, err := os.Lstat(c.LogPath)
		if err != nil || !st.Mode().IsRegular() || st.Size() < k.cfg.Logs.MaxBytes {
			continue
		}
		if err := k.rotate(ctx, c); err != nil && ctx.Err() == nil {
			k.log.Warn("rotate container log", "container", c.Name, "log", c.LogPath, "err", err)
		}
	}
}

// rotate moves the log aside and has the runtime begin a new one. If it does not, the old one comes back, so that
// the runtime's open file keeps its name. Readers follow by inode, see podlog.
func (k *Kubelet) rotate(ctx context.Context, c observe.Container) error {
	old, err := filepath.Glob(c.LogPath + ".*")
	if err != nil {
		return err
	}
	slices.Sort(old) // their names end with their times
	for len(old) > max(k.cfg.Logs.MaxFiles-2, 0) {
		if err := os.Remove(old[0]); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		old = old[1:]
	}
	aside := c.LogPath + "." + time.Now().UTC().Format("20060102-150405.000000")
	if err := os.Rename(c.LogPath, aside); err != nil {
		return err
	}
	if _, err := k.parts.cri.Runtime.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: c.ID}); err != nil {
		return errors.Join(fmt.Errorf("have the log reopened: %w", err), os.Rename(aside, c.LogPath))
	}
	return nil
}
