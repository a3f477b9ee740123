package pluginwatch

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// Kinds of plugins, as they name themselves.
const (
	CSI    = "CSIPlugin"
	Device = "DevicePlugin"
	DRA    = "DRAPlugin"
)

// Handler looks after one kind of plugin. Calls for different sockets may run at the same time.
type Handler interface {
	// Register makes the plugin known. An error is told to the plugin and the call is repeated.
	Register(ctx context.Context, name, endpoint string, versions []string) error
	// Deregister undoes Register: the socket is gone. The endpoint tells an older instance of a plugin from a newer one.
	Deregister(name, endpoint string)
}

// Watcher registers the plugins of one folder.
type Watcher struct {
	dir      string
	handlers map[string]Handler
	log      *slog.Logger

	sockets map[string]*socket // by path; only Run's goroutine touches it
	wg      sync.WaitGroup
}

// socket is one file of the folder with the goroutine that follows it.
type socket struct {
	info    os.FileInfo
	removed context.CancelFunc
	done    chan struct{} // closed when its goroutine has ended
}

// New makes a Watcher of the folder, with a handler for each kind of plugin; others are refused.
func New(dir string, handlers map[string]Handler, log *slog.Logger) *Watcher {
	return &Watcher{dir: dir, handlers: handlers, log: log, sockets: map[string]*socket{}}
}

// Run registers plugins until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	defer w.wg.Wait()
	if err := os.MkdirAll(w.dir, 0o750); err != nil {
		return fmt.Errorf("make the folder of plugins: %w", err)
	}
	watch, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the folder of plugins: %w (is fs.inotify.max_user_instances used up?)", err)
	}
	defer watch.Close()
	if err := watch.Add(w.dir); err != nil {
		return fmt.Errorf("watch the folder of plugins %s: %w", w.dir, err)
	}
	w.scan(ctx, watch)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-watch.Events:
			if e.Op == fsnotify.Chmod || e.Op == fsnotify.Write {
				continue
			}
			w.scan(ctx, watch)
		case err := <-watch.Errors: // an overflow lost events: the scan sees what they said
			w.log.Warn("watch of plugins", "dir", w.dir, "err", err)
			w.scan(ctx, watch)
		}
	}
}

// scan compares the folder with the sockets that are known. Names that begin with a dot are somebody's unfinished business.
func (w *Watcher) scan(ctx context.Context, watch *fsnotify.Watcher) {
	found := map[string]os.FileInfo{}
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil // vanished meanwhile
		case path != w.dir && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.IsDir():
			if err := watch.Add(path); err != nil {
				w.log.Warn("watch a folder of plugins", "dir", path, "err", err)
			}
		case d.Type()&fs.ModeSocket != 0:
			if info, err := d.Info(); err == nil {
				found[path] = info
			}
		}
		return nil
	})
	if err != nil {
		w.log.Error("read the folder of plugins", "dir", w.dir, "err", err)
		return // nobody is dropped because of a folder that cannot be read
	}
	for path, old := range w.sockets {
		if now, still := found[path]; !still || !os.SameFile(old.info, now) || !old.info.ModTime().Equal(now.ModTime()) {
			old.removed()
			if !still {
				delete(w.sockets, path)
				continue
			}
			w.sockets[path] = w.follow(ctx, path, now, old.done)
		}
	}
	for path, info := range found {
		if w.sockets[path] == nil {
			w.sockets[path] = w.follow(ctx, path, info, nil)
		}
	}
}

// follow starts a socket's goroutine, which begins after an earlier one of the same path has ended.
func (w *Watcher) follow(ctx context.Context, path string, info os.FileInfo, before <-chan struct{}) *socket {
	there, removed := context.WithCancel(ctx)
	s := &socket{info: info, removed: removed, done: make(chan struct{})}
	w.wg.Go(func() { // ends with the socket or with Run's context
		defer close(s.done)
		defer removed()
		if before != nil {
			<-before
		}
		w.serve(ctx, there, path)
	})
	return s
}
