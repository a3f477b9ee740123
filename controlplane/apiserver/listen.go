package apiserver

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// listen takes the port. If another process has it, the error says which.
func listen(addr netip.Addr, port int) (net.Listener, error) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, uint16(port))))
	if errors.Is(err, syscall.EADDRINUSE) {
		owner := ""
		if who := PortOwner("tcp", port); who != "" {
			owner = " by " + who
		}
		return nil, fmt.Errorf("port %d is in use%s; stop it, or choose another port: %w", port, owner, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on port %d: %w", port, err)
	}
	return l, nil
}

// PortOwner names the process that listens on a port of network tcp or udp, "" if that cannot be seen.
func PortOwner(network string, port int) string {
	inode := listenInode(network, port)
	if inode == "" {
		return ""
	}
	want := "socket:[" + inode + "]"
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && target == want {
			pid := strings.Split(fd, "/")[2]
			name, _ := os.ReadFile("/proc/" + pid + "/comm")
			return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(name)))
		}
	}
	return ""
}

// listenInode finds the socket that listens on the port in the kernel's tables (proc_pid_net(5)).
func listenInode(network string, port int) string {
	state := map[string]string{"tcp": "0A", "udp": "07"}[network] // a UDP socket that is bound and not connected is "closed"
	for _, version := range []string{"", "6"} {
		f, err := os.Open("/proc/net/" + network + version)
		if err != nil {
			continue
		}
		defer f.Close()
		suffix := fmt.Sprintf(":%04X", port)
		for sc := bufio.NewScanner(f); sc.Scan(); {
			col := strings.Fields(sc.Text())
			if len(col) > 9 && strings.HasSuffix(col[1], suffix) && col[3] == state {
				return col[9]
			}
		}
	}
	return ""
}
