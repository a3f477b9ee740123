package unpack

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// eachName lists the directory fd (from its start) and calls fn for each entry.
func eachName(fd int, fn func(name string) error) error {
	dup, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(dup), "directory")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := fn(n); err != nil {
			return err
		}
	}
	return nil
}

// Usage adds up disk blocks (in bytes) and inodes of the tree below the open
// directory root, itself included; hard links count once. Other filesystems
// mounted inside are not entered.
func Usage(ctx context.Context, root int) (bytes, inodes uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return 0, 0, fmt.Errorf("stat: %w", err)
	}
	u := usage{ctx: ctx, dev: st.Dev, seen: map[uint64]struct{}{}}
	u.add(&st)
	if err := u.dir(root); err != nil {
		return 0, 0, fmt.Errorf("disk usage: %w", err)
	}
	return u.bytes, u.inodes, nil
}

type usage struct {
	ctx           context.Context
	dev           uint64
	bytes, inodes uint64
	seen          map[uint64]struct{} // inodes with several links
}

func (u *usage) add(st *unix.Stat_t) {
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if _, again := u.seen[st.Ino]; again {
			return
		}
		u.seen[st.Ino] = struct{}{}
	}
	u.bytes += uint64(st.Blocks) * 512
	u.inodes++
}

func (u *usage) dir(fd int) error {
	if err := u.ctx.Err(); err != nil {
		return context.Cause(u.ctx)
	}
	return eachName(fd, func(name string) error {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT); err != nil {
			if err == unix.ENOENT {
				return nil // a running container removed it
			}
			return err
		}
		if st.Dev != u.dev {
			return nil
		}
		u.add(&st)
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil
		}
		sub, err := openDir(fd, name)
		if err != nil {
			return nil // gone or replaced meanwhile
		}
		defer unix.Close(sub)
		return u.dir(sub)
	})
}
