package netfilter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	nftGroup  = 7   // NFNLGRP_NFTABLES
	newGen    = 0xf // NFT_MSG_NEWGEN
	genPid    = 2   // NFTA_GEN_PROC_PID
	subsystem = 10  // NFNL_SUBSYS_NFTABLES
)

// settle is how long the filter must be quiet before it is looked at: who flushes usually writes again at once.
const settle = 200 * time.Millisecond

// Watch puts our rules back after somebody else removed them (a firewall that reloads, a flush by hand), until ctx ends. It
// is told of changes by the kernel, through nf_tables; the legacy variant of iptables makes no events, so its tables are looked at every few
// seconds.
func (t *IPTables) Watch(ctx context.Context) error {
	sock, err := nl.Subscribe(unix.NETLINK_NETFILTER, nftGroup)
	if err != nil {
		return fmt.Errorf("netfilter: watch: %w", err)
	}
	_ = unix.SetsockoptInt(sock.GetFd(), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	changed := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() { done <- t.receive(sock, changed); close(done) }() // ends when the socket is closed
	looking := make(chan struct{})
	ctx, stop := context.WithCancel(ctx)
	go func() { t.changes(ctx, changed); close(looking) }() // ends with ctx
	defer func() {
		stop()
		sock.Close()
		<-done
		<-looking
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-done:
			return err
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle):
		}
		if err := t.repair(ctx); err != nil && ctx.Err() == nil {
			t.cfg.Log.Error("the packet filter was changed by others and cannot be repaired; trying again", "error", err)
			wake(changed)
		}
	}
}

func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// receive reports changes of the ruleset that none of our own programs made.
func (t *IPTables) receive(sock *nl.NetlinkSocket, changed chan<- struct{}) error {
	for {
		msgs, _, err := sock.Receive()
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			wake(changed)
			continue
		case err != nil:
			return fmt.Errorf("netfilter: watch: %w", err)
		}
		for _, m := range msgs {
			if m.Header.Type == subsystem<<8|newGen && !t.ours(m.Data) {
				wake(changed)
			}
		}
	}
}

// ours tells whether the transaction was made by a program that we started.
func (t *IPTables) ours(data []byte) bool {
	if len(data) < 4 {
		return false
	}
	attrs, err := nl.ParseRouteAttr(data[4:])
	if err != nil {
		return false
	}
	for _, a := range attrs {
		if a.Attr.Type&0x3fff == genPid && len(a.Value) == 4 {
			pid := int(binary.BigEndian.Uint32(a.Value))
			t.pidMu.Lock()
			defer t.pidMu.Unlock()
			return slices.Contains(t.pids, pid)
		}
	}
	return false
}

// started remembers a program of ours, and forgets the oldest.
func (t *IPTables) started(pid int) {
	t.pidMu.Lock()
	defer t.pidMu.Unlock()
	if t.pids = append(t.pids, pid); len(t.pids) > 64 {
		t.pids = slices.Delete(t.pids, 0, 1)
	}
}

// repair writes again what is missing. What is there as we wrote it, by its chains' names and its hooks, is left alone.
func (t *IPTables) repair(ctx context.Context) error {
	if err := t.acquire(ctx); err != nil {
		return err
	}
	whole, err := t.whole(ctx)
	t.release()
	if whole || err != nil {
		return err
	}
	t.cfg.Log.Warn("somebody removed our packet filter rules; putting them back")
	if err := t.Resync(ctx); err != nil {
		return err
	}
	t.cfg.Repaired()
	return nil
}

// whole tells whether every chain that we wrote, every rule in number, and every hook is still there.
func (t *IPTables) whole(ctx context.Context) (bool, error) {
	if !t.loaded || len(t.have) == 0 {
		return true, nil
	}
	dump, err := t.run(ctx, nil, t.cfg.Save)
	if err != nil {
		return false, err
	}
	k := t.names.parse(dump)
	for at, lines := range t.have {
		if !k.chains[at] || k.rules[at] != len(lines) {
			return false, nil
		}
	}
	for at, yes := range t.kernel.based {
		if yes && !k.based[at] && !k.misplaced[at] { // others may have put theirs in front since
			return false, nil
		}
	}
	return true, nil
}
