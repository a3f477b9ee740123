package qos

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long after a removal we look: who removes one cgroup usually removes more.
const settle = 100 * time.Millisecond

// Watch makes kubepods and the class cgroups again, with their limits, when somebody removes them, until ctx ends, and tells
// which were gone. The kernel cannot be asked to remove one that has processes in it, so no pod notices.
func (t *Tree) Watch(ctx context.Context, repaired func(dirs []string, err error)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the pods' cgroups: %w (is fs.inotify.max_user_instances used up?)", err)
	}
	defer w.Close()
	var mine []string
	for known := false; !known; { // what goes before we listen is made; what goes before it is listed must not be missed for ever
		if err := t.Setup(); err != nil {
			return err
		}
		was := mine
		mine = t.levels()
		if err := follow(w, mine); err != nil {
			return err
		}
		known = slices.Equal(was, mine)
	}
	quiet := time.NewTimer(0) // what went since
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-w.Events:
			if e.Has(fsnotify.Remove) && slices.Contains(mine, e.Name) {
				quiet.Reset(settle)
			}
		case <-w.Errors: // an overflow lost events: the look sees what they said
			quiet.Reset(settle)
		case <-quiet.C:
			gone := slices.DeleteFunc(slices.Clone(mine), present)
			if len(gone) == 0 {
				continue
			}
			err := t.Setup()
			if err == nil {
				err = follow(w, mine)
			}
			repaired(gone, err)
			if err != nil {
				quiet.Reset(10 * settle)
			}
		}
	}
}

func present(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}

// levels are the directories of kubepods, its classes and all above them, in every hierarchy that has them.
func (t *Tree) levels() (dirs []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, root := range hierarchies(t.v2) {
		for _, leaf := range []string{t.group("burstable"), t.group("besteffort")} {
			for at := leaf; at != "/"; at = path.Dir(at) {
				if dir := filepath.Join(root, at); present(dir) && !slices.Contains(dirs, dir) {
					dirs = append(dirs, dir)
				}
			}
		}
	}
	return dirs
}

// follow watches the directories above: cgroupfs tells of a removal there.
func follow(w *fsnotify.Watcher, dirs []string) error {
	for _, dir := range dirs {
		if err := w.Add(filepath.Dir(dir)); err != nil {
			return fmt.Errorf("watch cgroup %s: %w", filepath.Dir(dir), err)
		}
	}
	return nil
}
