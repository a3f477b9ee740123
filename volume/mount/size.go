package mount

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// maxFiles bounds how many files Size looks at: a tree with more is judged by the first of them.
const maxFiles = 200_000

// Size is the space that a file or tree takes on disk, in bytes, and how many inodes: blocks, so that sparse files count for what they take, and a
// file with several names once. No symlink is followed and no other mount entered, also while the tree changes; a missing path is empty.
func Size(root string) (bytes, inodes uint64, err error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("mount: size of %s: %w", root, err)
	}
	defer unix.Close(dir)
	s := sizes{names: map[uint64]bool{}}
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("mount: size of %s: %w", root, err)
	}
	s.device = st.Dev
	s.add(st)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		s.left = append(s.left, ".")
	}
	// One descriptor at a time, whatever the depth.
	for len(s.left) > 0 && s.inodes < maxFiles {
		next := s.left[len(s.left)-1]
		s.left = s.left[:len(s.left)-1]
		fd, err := unix.Openat2(dir, next, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		if err != nil {
			continue // vanished meanwhile, became something else, or is a mount
		}
		s.read(os.NewFile(uintptr(fd), next), next)
	}
	return s.bytes, s.inodes, nil
}

// sizes is one walk.
type sizes struct {
	bytes, inodes uint64
	device        uint64
	names         map[uint64]bool // inodes with several names that were met
	left          []string        // folders to be read, relative to the root
}

func (s *sizes) add(st unix.Stat_t) {
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if s.names[st.Ino] {
			return
		}
		s.names[st.Ino] = true
	}
	s.inodes++
	s.bytes += uint64(st.Blocks) * 512
}

// read counts one folder's entries and closes it.
func (s *sizes) read(f *os.File, at string) {
	defer f.Close()
	for s.inodes < maxFiles {
		names, err := f.Readdirnames(1024)
		for _, name := range names {
			var st unix.Stat_t
			if unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT) != nil || uint64(st.Dev) != s.device {
				continue
			}
			s.add(st)
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				s.left = append(s.left, path.Join(at, name))
			}
		}
		if err == io.EOF || len(names) == 0 {
			return
		}
	}
}
