package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settleAfter is when what was needed for the start alone is given back: informers are filled by then.
const settleAfter = 3 * time.Second

// settle gives back the memory that only the start needed, once: free spans of the heap, and the pages of the program itself,
// which stay in the page cache and come again, one by one, when they are run. A third of the node's memory is such pages: every
// Kubernetes package runs its init.
func settle(ctx context.Context, log *slog.Logger) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(settleAfter):
	}
	debug.FreeOSMemory()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		log.Debug("memory of the start is not given back", "err", err)
		return nil
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	for _, m := range cleanMappings(smaps, exe) {
		// Pages of a file that nobody wrote to: the next access reads them from the file again.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED); errno != 0 {
			log.Debug("memory of the program is not given back", "err", errno)
		}
	}
	return nil
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
