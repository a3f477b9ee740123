package logfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Mark names a place in a log file so that a later process can finish a write
// there: the file by device and inode, since rotation renames it.
type Mark struct {
	Dev, Ino uint64
	Offset   int64
}

// Writer appends records to one container's log. It is not safe for
// concurrent use.
type Writer struct {
	path string
	file *os.File
	dev  uint64
	ino  uint64
}

// OpenWriter opens path for appending, making it (0640) and its directory if
// they are missing. A symlink in the last component is refused: the directory
// may be one that a pod's volume reaches. A last line without its end, left by
// a power cut or a full disk, is ended so that the next record starts clean.
func OpenWriter(path string) (*Writer, error) {
	w := &Writer{path: path}
	if err := w.open(); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Writer) open() error {
	const flags = os.O_RDWR | os.O_APPEND | os.O_CREATE | unix.O_NOFOLLOW | unix.O_CLOEXEC
	file, err := os.OpenFile(w.path, flags, 0o640)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(w.path), 0o755); err == nil {
			file, err = os.OpenFile(w.path, flags, 0o640)
		}
	}
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		file.Close()
		return fmt.Errorf("stat log %s: %w", w.path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		file.Close()
		return fmt.Errorf("open log %s: not a regular file", w.path)
	}
	if w.file != nil {
		w.file.Close()
	}
	w.file, w.dev, w.ino = file, uint64(st.Dev), st.Ino
	if st.Size > 0 {
		var last [1]byte
		if _, err := file.ReadAt(last[:], st.Size-1); err == nil && last[0] != '\n' {
			_, _ = file.Write([]byte("\n"))
		}
	}
	return nil
}

// Mark says where the next record will begin.
func (w *Writer) Mark() (Mark, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(w.file.Fd()), &st); err != nil {
		return Mark{}, fmt.Errorf("stat log %s: %w", w.path, err)
	}
	return Mark{Dev: w.dev, Ino: w.ino, Offset: st.Size}, nil
}

// Write appends whole records with one system call. If the disk takes only a
// part, what it took is cut off again at mark, so that the file always ends
// with a complete record.
func (w *Writer) Write(records []byte, at Mark) error {
	n, err := w.file.Write(records)
	if err != nil && n > 0 {
		_ = w.file.Truncate(at.Offset)
	}
	if err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	return nil
}

// Reopen opens the path anew after it was renamed. On error the old file is
// still written to.
func (w *Writer) Reopen() error { return w.open() }

// Path is the path that the writer was opened with.
func (w *Writer) Path() string { return w.path }

// Close closes the file.
func (w *Writer) Close() error { return w.file.Close() }

// Finish completes a write of records that was announced at mark and may have
// happened, in whole or in part or not at all, before the writer's process
// died. It looks for the file by inode at path and at its rotated names; a
// file that is gone was removed by its owner, with what it held.
func Finish(path string, at Mark, records []byte) error {
	names := []string{path}
	if more, err := filepath.Glob(globEscape(path) + ".*"); err == nil {
		names = append(names, more...)
	}
	for _, name := range names {
		done, err := finishIn(name, at, records)
		if done || err != nil {
			return err
		}
	}
	return nil
}

func finishIn(name string, at Mark, records []byte) (bool, error) {
	file, err := os.OpenFile(name, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, nil
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil || uint64(st.Dev) != at.Dev || st.Ino != at.Ino {
		return false, nil
	}
	if st.Size < at.Offset {
		return true, nil // truncated by hand since: nothing to complete
	}
	if st.Size >= at.Offset+int64(len(records)) {
		return true, nil
	}
	if _, err := file.WriteAt(records, at.Offset); err != nil {
		return true, fmt.Errorf("finish log %s at %d: %w", name, at.Offset, err)
	}
	return true, nil
}

// globEscape keeps filepath.Glob from reading pattern characters in a path.
func globEscape(path string) string {
	var out []byte
	for i := range len(path) {
		switch path[i] {
		case '*', '?', '[', '\\':
			out = append(out, '\\')
		}
		out = append(out, path[i])
	}
	return string(out)
}
