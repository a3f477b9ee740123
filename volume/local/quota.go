package local

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/fs.h and linux/quota.h.
const (
	fsGetXattr   = 0x801c581f
	fsSetXattr   = 0x401c5820
	projInherit  = 0x200
	prjQuota     = 2
	qGetQuota    = 0x800007
	qSetQuota    = 0x800008
	limitsValid  = 1 // QIF_BLIMITS
	quotaBlock   = 1024
	firstProject = uint32(1 << 20) // below are the administrator's
)

// fsxattr is struct fsxattr.
type fsxattr struct {
	Flags, ExtSize, NExtents, Project, CowExtSize uint32
	_                                             [8]byte
}

// dqblk is struct if_dqblk: limits in blocks of 1 KiB, use in bytes.
type dqblk struct {
	HardLimit, SoftLimit, Space, InodeHard, InodeSoft, Inodes, BTime, ITime uint64
	Valid                                                                   uint32
	_                                                                       [4]byte
}

func project(f *os.File) (uint32, error) {
	var x fsxattr
	if err := ioctl(f, fsGetXattr, unsafe.Pointer(&x)); err != nil {
		return 0, noQuota(err)
	}
	return x.Project, nil
}

// hold puts a folder with what is made in it into a project and limits that. The limit comes first: a
// folder that is in a project is held to its size at every moment.
func hold(f *os.File, id uint32, bytes int64) error {
	q := dqblk{HardLimit: uint64(bytes+quotaBlock-1) / quotaBlock, Valid: limitsValid}
	q.SoftLimit = q.HardLimit
	if err := quotactl(f, qSetQuota, id, &q); err != nil {
		return noQuota(err)
	}
	var x fsxattr
	if err := ioctl(f, fsGetXattr, unsafe.Pointer(&x)); err != nil {
		return noQuota(err)
	}
	if x.Project == id && x.Flags&projInherit != 0 {
		return nil
	}
	x.Project, x.Flags = id, x.Flags|projInherit
	return noQuota(ioctl(f, fsSetXattr, unsafe.Pointer(&x)))
}

// usage is how many bytes and files a project has.
func usage(f *os.File, id uint32) (uint64, error) {
	var q dqblk
	err := quotactl(f, qGetQuota, id, &q)
	if errors.Is(err, unix.ENOENT) { // XFS has no record of a project that was never used
		return 0, nil
	}
	return q.Space + q.Inodes, noQuota(err)
}

// quotactl works on the filesystem of an open file (Linux 5.14).
func quotactl(f *os.File, cmd int, id uint32, q *dqblk) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), uintptr(cmd<<8|prjQuota), uintptr(id), uintptr(unsafe.Pointer(q)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// noQuota tells a filesystem that has none from one that fails.
func noQuota(err error) error {
	for _, none := range []error{unix.ESRCH, unix.ENOTTY, unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL, unix.EPERM} {
		if errors.Is(err, none) {
			return ErrNoQuota
		}
	}
	if err != nil {
		return fmt.Errorf("project quota: %w", err)
	}
	return nil
}
