package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/controlplane/apiserver"
)

// preflight takes from the machine what the server's process needs, and refuses while nothing has been started yet.
func preflight(o *options, log *slog.Logger) error {
	if err := lacks(probes(), o); err != nil {
		return err
	}
	if err := limits(log); err != nil {
		return err
	}
	return portsFree(o)
}

// lacks is what a node cannot do without and the machine has not, each with its mend. A port or disk that is full is told by who needs it.
func lacks(probes []probe, o *options) error {
	var errs []error
	for _, p := range probes {
		if !p.required || p.name == "ports" || p.name == "disk" {
			continue
		}
		if _, mend, err := p.look(o); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w: %s", p.name, err, mend))
		}
	}
	return errors.Join(errs...)
}

const (
	// ownOOMScore is the process's and its keeper's: the kernel takes any pod first. Containers and what is run in them get their own.
	ownOOMScore = -999
	wantFiles   = 1 << 20
	fewestFiles = 4096
)

// limits are the process's own, as the systemd unit sets them; whoever starts the server by hand has them too.
func limits(log *slog.Logger) error {
	const file = "/proc/self/oom_score_adj"
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if now, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || now > ownOOMScore {
		if err := os.WriteFile(file, []byte(strconv.Itoa(ownOOMScore)), 0); err != nil {
			log.Warn("the OOM killer may choose this process: it has no right to protect itself (CAP_SYS_RESOURCE)", "err", err)
		}
	}
	if err := raiseFiles(); err != nil {
		return err
	}
	return inotifyWorks()
}

// raiseFiles raises the limit of open files as far as it goes.
func raiseFiles() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	if l.Cur >= wantFiles {
		return nil
	}
	want := syscall.Rlimit{Cur: wantFiles, Max: max(wantFiles, l.Max)}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &want) == nil {
		return nil
	}
	if want = (syscall.Rlimit{Cur: l.Max, Max: l.Max}); l.Max < fewestFiles {
		return fmt.Errorf("this process may have %d open files and cannot raise that; a node needs %d: run `ulimit -n 1048576` before, or set LimitNOFILE in its unit", l.Max, fewestFiles)
	}
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &want)
}

// inotifyWorks tries what static pods, logs and plugins are followed with.
func inotifyWorks() error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("no inotify instance can be had (%w): run `sysctl -w fs.inotify.max_user_instances=8192`", err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, "/", unix.IN_DELETE_SELF); err != nil {
		return fmt.Errorf("no inotify watch can be had (%w): run `sysctl -w fs.inotify.max_user_watches=1048576`", err)
	}
	return nil
}

// portsFree tries every port that the server will listen on, so that none is found taken when half of it runs.
func portsFree(o *options) error {
	tcp := []struct {
		flag, addr string
		port       int
	}{
		{"--https-port", o.plane.Address, o.plane.Port},
		{"--kubelet-port", "0.0.0.0", o.node.KubeletPort},
		{"--healthz-port", "127.0.0.1", o.node.HealthzPort},
		{"--proxy-healthz-port", "", o.node.ProxyPort},
		{"--proxy-metrics-port", "127.0.0.1", o.node.MetricsPort},
	}
	for _, p := range tcp {
		if p.port == 0 {
			continue
		}
		if err := portFree("tcp", p.addr, p.port, nil); err != nil {
			return fmt.Errorf("%s: %w", p.flag, err)
		}
	}
	if o.plane.DNS == "" { // `check` does not fill it in: the address depends on the Service range
		return nil
	}
	for _, network := range []string{"tcp", "udp"} {
		if err := portFree(network, o.plane.DNS, dnsPort, asDNS); err != nil {
			return fmt.Errorf("the cluster DNS, --cluster-dns: %w", err)
		}
	}
	return nil
}

func portFree(network, addr string, port int, control func(string, string, syscall.RawConn) error) error {
	lc, at := net.ListenConfig{Control: control}, net.JoinHostPort(addr, strconv.Itoa(port))
	var err error
	if network == "udp" {
		var c net.PacketConn
		if c, err = lc.ListenPacket(context.Background(), network, at); err == nil {
			return c.Close()
		}
	} else {
		var l net.Listener
		if l, err = lc.Listen(context.Background(), network, at); err == nil {
			return l.Close()
		}
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen on port %d: %w", port, err)
	}
	owner := ""
	if who := apiserver.PortOwner(network, port); who != "" {
		owner = " by " + who
	}
	return fmt.Errorf("port %d is in use%s; stop it, or choose another port: %w", port, owner, err)
}

// asDNS binds as the DNS server will: beside a server on all addresses that allows it, and to an address that the node gets later.
func asDNS(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1))
	}); cerr != nil {
		return cerr
	}
	return err
}
