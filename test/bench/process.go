package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// usage of a set of processes.
type usage struct {
	PSS int64         // bytes
	CPU time.Duration // since their start
}

// measure sums up processes; one that ended does not count.
func measure(pids []int) (u usage) {
	for _, pid := range pids {
		u.PSS += pss(pid)
		u.CPU += cpu(pid)
	}
	return u
}

const (
	settleStep  = 2 * time.Second
	settleLimit = 30 * time.Second
)

// settled waits until the processes' memory no longer falls: what only a start needed is given back some seconds after it.
func settled(ctx context.Context, pids []int) error {
	last := measure(pids).PSS
	for calm, began := 0, time.Now(); calm < 3 && time.Since(began) < settleLimit; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settleStep): // no event tells of memory
		}
		now := measure(pids).PSS
		if calm++; now < last-last/50 {
			calm = 0
		}
		last = now
	}
	return nil
}

// idle returns how much of a core the processes use while nothing is asked of them, in ms per second.
func idle(ctx context.Context, pids []int, window time.Duration) (float64, error) {
	before := threads(pids)
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(window): // the window is the measurement
	}
	return milli(threads(pids)-before) / window.Seconds(), nil
}

func pss(pid int) int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// cpu is what /proc/pid/stat says, in ticks of 10 ms: the time of threads that ended is in it.
func cpu(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const user, system = 11, 12 // behind the command's name
	if len(fields) <= system {
		return 0
	}
	a, _ := strconv.ParseInt(fields[user], 10, 64)
	b, _ := strconv.ParseInt(fields[system], 10, 64)
	return time.Duration(a+b) * 10 * time.Millisecond
}

// threads is the time that the processes' living threads ran, to the nanosecond: for rest, in which none ends.
func threads(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/schedstat", pid))
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				continue
			}
			if fields := strings.Fields(string(data)); len(fields) > 0 {
				n, _ := strconv.ParseInt(fields[0], 10, 64)
				sum += time.Duration(n)
			}
		}
	}
	return sum
}

// daemonOf returns the process that listens on a unix socket.
func daemonOf(socket string) (int, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return int(cred.Pid), nil
}

// monitors are the per-pod programs of other runtimes: what a pod costs besides its workload.
func monitors() map[int]bool {
	out := map[int]bool{}
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil {
			continue
		}
		if name := filepath.Base(exe); strings.HasPrefix(name, "containerd-shim") || strings.HasPrefix(name, "conmon") {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			out[pid] = true
		}
	}
	return out
}
