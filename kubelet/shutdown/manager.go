package shutdown

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/godbus/dbus/v5"
	corev1 "k8s.io/api/core/v1"
)

// logind's names on the bus.
const (
	service   = "org.freedesktop.login1"
	object    = dbus.ObjectPath("/org/freedesktop/login1")
	iface     = service + ".Manager"
	preparing = "PrepareForShutdown"
)

// usable is the part of what logind allows that pods get: the rest is for their last statuses.
const usable = 0.9

// Config of a Manager.
type Config struct {
	// Bus is the address of the system bus; "" for the machine's.
	Bus string
	// Periods say how long pods have to end, by priority. Empty: as long as logind allows, a third of it for critical pods.
	Periods []Period
	// Who holds the lock, as `systemd-inhibit --list` shows it.
	Who string
	Log *slog.Logger
}

// Node is the node that shuts down.
type Node interface {
	// Leaving tells the node that it is to refuse new pods and to say so, or that it may take them again.
	Leaving(leaving bool)
	// Pods are those that run.
	Pods() []*corev1.Pod
	// End ends a pod within the given time and without waiting.
	End(pod *corev1.Pod, grace time.Duration)
	// Wait returns when all of the pods have ended and their ends are told, or when ctx ends.
	Wait(ctx context.Context, pods []*corev1.Pod)
}

// Manager waits for the machine's shutdown.
type Manager struct {
	cfg  Config
	node Node
}

// New makes a Manager; all of cfg but Bus and Periods is required.
func New(cfg Config, n Node) *Manager { return &Manager{cfg, n} }

// Run waits for shutdowns until ctx ends. A bus that goes away is looked for again; one that was never there is not.
func (m *Manager) Run(ctx context.Context) error {
	for delay := time.Second; ; delay = min(2*delay, time.Minute) {
		was, err := m.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !was {
			m.cfg.Log.Info("no logind: pods are not ended in order when the machine shuts down", "err", err)
			<-ctx.Done()
			return nil
		}
		m.cfg.Log.Warn("the connection to logind is lost: will try again", "err", err)
		t := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

// session is one connection's life. held tells whether logind had given its lock.
func (m *Manager) session(ctx context.Context) (held bool, err error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	signals := make(chan *dbus.Signal, 8)
	conn.Signal(signals)
	if err := conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(iface), dbus.WithMatchMember(preparing), dbus.WithMatchObjectPath(object)); err != nil {
		return false, fmt.Errorf("listen to logind: %w", err)
	}
	periods, err := m.periods(ctx, conn)
	if err != nil {
		return false, err
	}
	lock, err := m.inhibit(ctx, conn)
	if err != nil {
		return false, err
	}
	defer func() { lock.Close() }()
	for {
		select {
		case <-ctx.Done():
			return true, nil
		case s, open := <-signals:
			if !open {
				return true, errors.New("the bus closed the connection")
			}
			if len(s.Body) != 1 || s.Name != iface+"."+preparing {
				continue
			}
			if begins, _ := s.Body[0].(bool); begins {
				m.shutDown(ctx, periods)
				lock.Close()
				continue
			}
			m.cfg.Log.Info("the machine's shutdown was called off")
			m.node.Leaving(false)
			if lock, err = m.inhibit(ctx, conn); err != nil {
				return true, err
			}
		}
	}
}

func (m *Manager) connect(ctx context.Context) (*dbus.Conn, error) {
	if m.cfg.Bus != "" {
		return dbus.Connect(m.cfg.Bus, dbus.WithContext(ctx))
	}
	return dbus.ConnectSystemBus(dbus.WithContext(ctx))
}

// periods are those configured, or shares of what logind allows.
func (m *Manager) periods(ctx context.Context, conn *dbus.Conn) ([]Period, error) {
	var v dbus.Variant
	err := conn.Object(service, object).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, iface, "InhibitDelayMaxUSec").Store(&v)
	if err != nil {
		return nil, fmt.Errorf("ask logind how long it waits: %w", err)
	}
	usec, is := v.Value().(uint64)
	if !is {
		return nil, fmt.Errorf("ask logind how long it waits: it answers %s", v.String())
	}
	allowed := time.Duration(usec) * time.Microsecond
	most := time.Duration(float64(allowed) * usable)
	if len(m.cfg.Periods) == 0 {
		return Periods(most, most/3), nil
	}
	if want := Sum(m.cfg.Periods); want > most {
		m.cfg.Log.Warn("logind waits less long for pods than configured: set InhibitDelayMaxSec in a file of /etc/systemd/logind.conf.d and restart systemd-logind",
			"configured", want, "InhibitDelayMaxSec", allowed, "needed", time.Duration(float64(want)/usable).Round(time.Second))
	}
	return Fit(m.cfg.Periods, most), nil
}

// inhibit takes the lock. The shutdown is held up as long as the file is open.
func (m *Manager) inhibit(ctx context.Context, conn *dbus.Conn) (*os.File, error) {
	var fd dbus.UnixFD
	err := conn.Object(service, object).CallWithContext(ctx, iface+".Inhibit", 0,
		"shutdown", m.cfg.Who, "Pods need time to end before the node shuts down", "delay").Store(&fd)
	if err != nil {
		return nil, fmt.Errorf("take logind's lock: %w", err)
	}
	return os.NewFile(uintptr(fd), "inhibitor"), nil
}

// shutDown ends all pods, group by group.
func (m *Manager) shutDown(ctx context.Context, periods []Period) {
	m.cfg.Log.Warn("the machine shuts down: ending pods")
	m.node.Leaving(true)
	for _, g := range Plan(m.node.Pods(), periods) {
		m.cfg.Log.Info("ending pods for the machine's shutdown", "priority", g.Priority, "pods", len(g.Pods), "within", g.Grace)
		for _, p := range g.Pods {
			m.node.End(p, g.Grace)
		}
		limit, cancel := context.WithTimeout(ctx, g.Grace)
		m.node.Wait(limit, g.Pods)
		cancel()
	}
}
