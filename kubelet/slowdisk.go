package kubelet

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// slowIO is how long reads and writes take, on average between two looks, on a disk on which nothing works any more.
	slowIO = 5 * time.Second
	// betweenDisks is the least time between two looks at the disks.
	betweenDisks = 10 * time.Second
)

// diskIO is what the kernel counts of a block device: requests that ended, how long they took together, and those under way.
type diskIO struct {
	done, flying uint64
	took         time.Duration
}

// readIO reads a "stat" file of sysfs (block/stat.rst): reads, writes and flushes count.
func readIO(path string) (diskIO, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return diskIO{}, err
	}
	f := strings.Fields(string(b))
	at := func(i int) (v uint64) {
		if i < len(f) && err == nil {
			v, err = strconv.ParseUint(f[i], 10, 64)
		}
		return v
	}
	out := diskIO{done: at(0) + at(4) + at(15), flying: at(8), took: time.Duration(at(3)+at(7)+at(16)) * time.Millisecond}
	if len(f) < 9 {
		err = fmt.Errorf("%s has %d numbers", path, len(f))
	}
	return out, err
}

// diskWatch notices disks that answer slowly or not at all. It asks none of them: what they do for others is what counts.
type diskWatch struct {
	sys  string // where sysfs is mounted
	last map[string]diskIO
	at   time.Time // of last

	complaint string
	until     time.Time
}

// look says what is wrong with the disks of the folders, for as long as hold after it was last seen; "" if nothing.
func (w *diskWatch) look(folders []string, now time.Time, hold time.Duration) string {
	if since := now.Sub(w.at); since >= betweenDisks {
		seen := map[string]diskIO{}
		for _, folder := range folders {
			var st unix.Stat_t
			if unix.Stat(folder, &st) != nil || unix.Major(st.Dev) == 0 {
				continue // no disk of its own: tmpfs, btrfs
			}
			dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
			io, err := readIO(w.sys + "/dev/block/" + dev + "/stat")
			if err != nil {
				continue
			}
			seen[dev] = io
			if old, known := w.last[dev]; known {
				if why := slow(old, io); why != "" {
					w.complaint = fmt.Sprintf("the disk of %s (%s) %s in the last %s: pods cannot work; look for its errors in the kernel's log", folder, dev, why, since.Round(time.Second))
					w.until = now.Add(hold)
				}
			}
		}
		w.last, w.at = seen, now
	}
	if now.Before(w.until) {
		return w.complaint
	}
	return ""
}

// slow judges what a disk did between two looks.
func slow(old, now diskIO) string {
	done, took := now.done-min(old.done, now.done), now.took-min(old.took, now.took)
	switch {
	case done == 0 && old.flying > 0 && now.flying > 0:
		return fmt.Sprintf("has ended none of %d requests", now.flying)
	case done > 0 && took/time.Duration(done) >= slowIO:
		return fmt.Sprintf("took %s for a request on average", (took / time.Duration(done)).Round(100*time.Millisecond))
	}
	return ""
}
