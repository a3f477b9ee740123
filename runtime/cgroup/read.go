package cgroup

import (
	"bytes"
	"errors"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of a file: the largest, memory.stat, has some 3 KB.
const maxFile = 16 << 10

var buffers = sync.Pool{New: func() any { return new([maxFile]byte) }}

// read gives the text of a control file to use, which must not keep it; none if
// the file cannot be read. os.ReadFile would offer the descriptor to Go's poller
// first and ask for the size, which costs more than the reading; stats are read
// of every container, every few seconds.
func read(dir, name string, use func(text []byte)) {
	if dir == "" {
		return
	}
	fd, err := unix.Open(dir+"/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	buf := buffers.Get().(*[maxFile]byte)
	defer buffers.Put(buf)
	for n := 0; n < len(buf); {
		m, err := unix.Read(fd, buf[n:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return
		case m == 0:
			use(buf[:n])
			return
		default:
			n += m
		}
	}
}

// readNumber reads a file of one number; "max", an absent file and anything
// else count as 0.
func readNumber(dir, name string) (n uint64) {
	read(dir, name, func(text []byte) { n = limitOf(number(text)) })
	return n
}

func number(text []byte) uint64 {
	n, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// readTable reads a file of "key number" lines into those of want that are
// there.
func readTable(dir, name string, want map[string]*uint64) {
	read(dir, name, func(text []byte) {
		for line := range bytes.Lines(text) {
			key, value, _ := bytes.Cut(line, []byte(" "))
			if to := want[string(key)]; to != nil {
				*to = number(value)
			}
		}
	})
}
