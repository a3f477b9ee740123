// Package logindtest has a working logind for tests: a bus of its own (dbus-daemon) with an object that gives out inhibitor
// locks, says when the machine shuts down, and knows which locks are still held.
package logindtest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"
)

const (
	service = "org.freedesktop.login1"
	object  = dbus.ObjectPath("/org/freedesktop/login1")
	iface   = service + ".Manager"
)

// Logind is the model.
type Logind struct {
	Bus string // the bus's address
	// Locks brings each lock that is given out. Receive from it before Shutdown.
	Locks chan *Lock
	conn  *dbus.Conn

	mu    sync.Mutex
	given map[dbus.UnixFD]func() // locks whose answers are on their way; guarded by mu
}

// Lock is one inhibitor lock.
type Lock struct {
	What, Who, Why, Mode string
	Released             <-chan struct{} // closed when the holder lets go
}

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>custom</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`

// Start starts a bus with a logind on it that waits delay at most. It ends with the test, which is skipped where
// there is no dbus-daemon.
func Start(t testing.TB, delay time.Duration) *Logind {
	t.Helper()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("needs dbus-daemon (Debian package dbus-daemon)")
	}
	dir, err := os.MkdirTemp("", "bus") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	conf := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, busConfig, filepath.Join(dir, "s")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), daemon, "--config-file="+conf, "--nofork", "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dbus-daemon said no address: %v", err)
	}
	l := &Logind{Bus: strings.TrimSpace(address), Locks: make(chan *Lock, 8), given: map[dbus.UnixFD]func(){}}
	if l.conn, err = dbus.Connect(l.Bus, dbus.WithOutgoingInterceptor(l.sending)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.conn.Close() })
	if err := l.export(delay); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *Logind) export(delay time.Duration) error {
	if err := l.conn.Export(manager{l}, object, iface); err != nil {
		return err
	}
	_, err := prop.Export(l.conn, object, prop.Map{iface: {"InhibitDelayMaxUSec": {Value: uint64(delay / time.Microsecond)}}})
	if err != nil {
		return err
	}
	if r, err := l.conn.RequestName(service, dbus.NameFlagDoNotQueue); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		return fmt.Errorf("own %s: %v, %w", service, r, err)
	}
	return nil
}

// Shutdown says that the machine shuts down, or no longer does.
func (l *Logind) Shutdown(begins bool) error {
	return l.conn.Emit(object, iface+".PrepareForShutdown", begins)
}

// manager is what the bus sees.
type manager struct{ l *Logind }

// Inhibit gives out a lock: the writing end of a pipe, held by whoever has it open.
func (m manager) Inhibit(what, who, why, mode string) (dbus.UnixFD, *dbus.Error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	released := make(chan struct{})
	go func() { // ends when the lock is let go
		defer close(released)
		defer r.Close()
		_, _ = r.Read(make([]byte, 1))
	}()
	fd := dbus.UnixFD(w.Fd())
	m.l.mu.Lock()
	m.l.given[fd] = func() {
		w.Close()
		m.l.Locks <- &Lock{what, who, why, mode, released}
	}
	m.l.mu.Unlock()
	return fd, nil
}

// sending sees every message before it is sent. A lock's answer is followed by a question to the bus: when that is
// answered, the bus has its copy of the lock and ours can go.
func (l *Logind) sending(msg *dbus.Message) {
	if msg.Type != dbus.TypeMethodReply || len(msg.Body) != 1 {
		return
	}
	fd, is := msg.Body[0].(dbus.UnixFD)
	if !is {
		return
	}
	l.mu.Lock()
	done := l.given[fd]
	delete(l.given, fd)
	l.mu.Unlock()
	if done == nil {
		return
	}
	go func() { // ends with the bus's answer
		_ = l.conn.BusObject().Call("org.freedesktop.DBus.GetId", 0).Err
		done()
	}()
}
