// Command keelson-keeper is the parent of every container of a node: it starts
// them, pumps their logs and learns how they ended. The keelson daemon starts
// it with an open listening socket and a held lock, and talks to it over that
// socket; nobody calls it by hand. See runtime/keeper.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/engine/libcontainer"
	"keelson.dev/keelson/runtime/engine/native/launcher"
	"keelson.dev/keelson/runtime/keeper"
	"keelson.dev/keelson/runtime/keeper/server"
)

// init runs before main, and main's imports are kept few: every container
// starts through here.
func init() { libcontainer.Init() }

func main() {
	dir := flag.String("dir", "", "the keeper's directory; required")
	build := flag.String("build", "", "what this build is called")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(*dir, *build, log); err != nil {
		log.Error("keeper ends", "err", err)
		os.Exit(1)
	}
}

func run(dir, build string, log *slog.Logger) error {
	if dir == "" {
		return errors.New("-dir is required; the keelson daemon starts this program")
	}
	if err := becomeParent(); err != nil {
		return err
	}
	listener, err := inherited()
	if err != nil {
		return err
	}
	s, err := server.New(server.Config{
		Dir: dir, Listener: listener, Engine: launcher.New(libcontainer.New(log)), Build: build, Log: log,
	})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return s.Run(ctx)
}

// becomeParent sets what a parent of many needs: orphans come to it, memory
// stays small, and a write to a closed pipe is an error, not its death.
func becomeParent() error {
	// ps and top call it so; a program executed by its descriptor has the descriptor's number for a name.
	_ = os.WriteFile("/proc/self/comm", []byte("keelson-keeper"), 0)
	debug.SetGCPercent(25)
	debug.SetMemoryLimit(24 << 20)
	// Notified, not ignored: what is ignored stays so in the containers.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	unix.Umask(0o022)
	return nil
}

// inherited takes the listening socket and the lock from the daemon. The lock
// is held by being open.
func inherited() (*net.UnixListener, error) {
	unix.CloseOnExec(keeper.LockFD)
	f := os.NewFile(keeper.ListenFD, "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("inherit listening socket: %w", err)
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		return nil, fmt.Errorf("inherit listening socket: it is a %T", l)
	}
	ul.SetUnlinkOnClose(false)
	return ul, nil
}
