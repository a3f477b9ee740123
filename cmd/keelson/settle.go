package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// settleAfter is when what was needed for the start alone is given back: informers are filled by then.
	settleAfter = 3 * time.Second
	// calm is for how long no garbage was collected when a burst is over.
	calm = 10 * time.Second
	// worth is how many bytes at least make it worth a collection, which takes tens of milliseconds.
	worth = 16 << 20
)

// settle gives back the memory that only the start needed, and again after each burst of work.
func settle(ctx context.Context, log *slog.Logger) error {
	collected := make(chan struct{}, 1)
	collections(ctx, collected)
	after := time.NewTimer(settleAfter)
	defer after.Stop()
	var least uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-collected:
			if least > 0 {
				after.Reset(calm)
			}
		case <-after.C:
			if held() > least+max(least/4, worth) {
				giveBack(log)
				least = held()
			}
		}
	}
}

// collections sends to c after each garbage collection, unless something is in it, until ctx ends.
func collections(ctx context.Context, c chan<- struct{}) {
	type sentinel struct{ _ *byte } // a pointer keeps it out of the allocator's blocks of many small objects, which die together
	runtime.AddCleanup(new(sentinel), func(c chan<- struct{}) {
		if ctx.Err() != nil {
			return
		}
		select {
		case c <- struct{}{}:
		default:
		}
		collections(ctx, c)
	}, c)
}

// held is the memory that Go's runtime has from the system, in bytes.
func held() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

// giveBack returns free spans of the heap to the system, and the pages of the program itself, which stay in the page cache and come
// again, one by one, when they are run. A third of a node's memory is such pages: every Kubernetes package runs its init.
func giveBack(log *slog.Logger) {
	debug.FreeOSMemory()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		log.Debug("the program's memory is not given back", "err", err)
		return
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for _, m := range cleanMappings(smaps, exe) {
		// Without this, one access to a file that the cache holds in huge pages brings 2 MiB of it back.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_NOHUGEPAGE)
		// Pages of a file that nobody wrote to: the next access reads them from the file again.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED); errno != 0 {
			log.Debug("the program's memory is not given back", "err", errno)
		}
	}
}

type mapping struct{ start, end uintptr }

// cleanMappings are the mappings of a file that are not writable and have no page of this process's own (a relocated one would
// be lost). smaps is of proc_pid_smaps(5).
func cleanMappings(smaps []byte, file string) (out []mapping) {
	var m mapping
	var perms, path string
	for lines := bufio.NewScanner(bytes.NewReader(smaps)); lines.Scan(); {
		line := lines.Text()
		var head mapping
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &head.start, &head.end, &perms); n == 3 {
			m = head
			_, path, _ = strings.Cut(line, "/")
			path = "/" + path
			continue
		}
		if v, ok := strings.CutPrefix(line, "Anonymous:"); ok && path == file && !strings.Contains(perms, "w") &&
			strings.TrimSpace(v) == "0 kB" {
			out = append(out, m)
		}
	}
	return out
}
