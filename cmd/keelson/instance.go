package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ownedMark lies in a folder that did not exist (or was empty) before us: uninstall may remove all of it.
const ownedMark = ".keelson-owned"

// instance is what an uninstall must know about a server that has run: its places, bridge and ranges.
type instance struct {
	Options struct {
		Place places
		Node  nodeOptions
		Plane planeOptions
	}
	path string
	lock *os.File
}

func instancePath(p places) string { return filepath.Join(p.Data, "instance.json") }

// claim makes this process the only server on its data directory, or says who else is.
// The lock ends with release or with the process, however it ends.
func claim(o *options) (*instance, error) {
	if err := os.MkdirAll(o.place.Data, 0o711); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	lockPath := filepath.Join(o.place.Data, "lock")
	lock, err := os.OpenFile(lockPath, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := os.ReadFile(lockPath)
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("data directory %s is in use by keelson with pid %s: stop it first, or choose another --data-dir and --run-dir",
				o.place.Data, strings.TrimSpace(string(pid)))
		}
		return nil, fmt.Errorf("lock %s: %w", lockPath, err)
	}
	if err := errors.Join(lock.Truncate(0), writeAt(lock, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		lock.Close()
		return nil, fmt.Errorf("write %s: %w", lockPath, err)
	}
	i := &instance{path: instancePath(o.place), lock: lock}
	if data, err := os.ReadFile(i.path); err == nil && json.Unmarshal(data, &i.Options) == nil { // one that cannot be read says nothing
		if err := sameIdentity(i.Options.Node, o.node, i.Options.Plane, o.plane); err != nil {
			lock.Close()
			return nil, fmt.Errorf("%w: what is in %s was made with it. Start it so again, or run `keelson uninstall` first", err, o.place.Data)
		}
	}
	i.Options.Place, i.Options.Node, i.Options.Plane = o.place, o.node, o.plane
	for _, dir := range []string{o.place.KubeletRoot, o.place.PodLogs, o.place.Config, o.place.Run} {
		if err := own(dir); err != nil {
			return nil, err
		}
	}
	data, err := json.MarshalIndent(i.Options, "", "  ")
	if err != nil {
		return nil, err
	}
	return i, os.WriteFile(i.path, data, 0o600)
}

// sameIdentity refuses what cannot change under pods, Services and volumes that are there. Addresses of the node, its MTU and ports
// may: they are followed. What one side does not say (the runtime alone has no plane) is not compared.
func sameIdentity(was, now nodeOptions, plane, next planeOptions) error {
	for _, f := range []struct{ flag, was, now string }{
		{"--node-name", was.Name, now.Name},
		{"--bridge", was.Bridge, now.Bridge},
		{"--pod-cidr", was.PodCIDR, now.PodCIDR},
		{"--cluster-cidr", was.ClusterCIDR, now.ClusterCIDR},
		{"--service-cidr", plane.ServiceCIDR, sameRange(plane.ServiceCIDR, next.ServiceCIDR)},
		{"--cluster-dns", plane.DNS, next.DNS},
		{"--cluster-domain", plane.Domain, next.Domain},
	} {
		if f.was != "" && f.now != "" && f.was != f.now {
			return fmt.Errorf("%s was %s and is %s now", f.flag, f.was, f.now)
		}
	}
	return nil
}

// sameRange is the ranges as they were if one of another family has joined them, which those that are there do not notice.
func sameRange(was, now string) string {
	if strings.HasPrefix(now, was+",") {
		return was
	}
	return now
}

// release lets another server have the places. Until it is called the lock's file must stay reachable: collected, it is closed.
func (i *instance) release() { i.lock.Close() }

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// own makes a folder, and marks it as ours if it was not there or empty.
func own(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if len(entries) > 0 {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, ownedMark), []byte("made by keelson; keelson uninstall removes this folder\n"), 0o644)
}

// readInstance returns what the last server on these places was started with, and its pid if it still runs (0 if not).
func readInstance(p places) (*instance, int, error) {
	data, err := os.ReadFile(instancePath(p))
	if err != nil {
		return nil, 0, err
	}
	i := &instance{path: instancePath(p)}
	if err := json.Unmarshal(data, &i.Options); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", instancePath(p), err)
	}
	return i, runningPid(p), nil
}

// runningPid returns the pid of the process that holds the data directory, 0 if none does.
func runningPid(p places) int {
	lock, err := os.Open(filepath.Join(p.Data, "lock"))
	if err != nil {
		return 0
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return 0
	}
	text := make([]byte, 16)
	n, _ := lock.ReadAt(text, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	return pid
}
