package native

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// System calls by number, as instructions have them.
const (
	sysClose        = uint32(unix.SYS_CLOSE)
	sysOpenat       = uint32(unix.SYS_OPENAT)
	sysOpenat2      = uint32(unix.SYS_OPENAT2)
	sysMkdirat      = uint32(unix.SYS_MKDIRAT)
	sysMknodat      = uint32(unix.SYS_MKNODAT)
	sysSymlinkat    = uint32(unix.SYS_SYMLINKAT)
	sysUnlinkat     = uint32(unix.SYS_UNLINKAT)
	sysFchownat     = uint32(unix.SYS_FCHOWNAT)
	sysFchmodat     = uint32(unix.SYS_FCHMODAT)
	sysFchown       = uint32(unix.SYS_FCHOWN)
	sysWrite        = uint32(unix.SYS_WRITE)
	sysRead         = uint32(unix.SYS_READ)
	sysMount        = uint32(unix.SYS_MOUNT)
	sysUmount2      = uint32(unix.SYS_UMOUNT2)
	sysFsopen       = uint32(unix.SYS_FSOPEN)
	sysFsconfig     = uint32(unix.SYS_FSCONFIG)
	sysFsmount      = uint32(unix.SYS_FSMOUNT)
	sysOpenTree     = uint32(unix.SYS_OPEN_TREE)
	sysMoveMount    = uint32(unix.SYS_MOVE_MOUNT)
	sysMountSetattr = uint32(unix.SYS_MOUNT_SETATTR)
	sysPivotRoot    = uint32(unix.SYS_PIVOT_ROOT)
	sysFchdir       = uint32(unix.SYS_FCHDIR)
	sysChdir        = uint32(unix.SYS_CHDIR)
	sysGetcwd       = uint32(unix.SYS_GETCWD)
	sysUnshare      = uint32(unix.SYS_UNSHARE)
	sysSetns        = uint32(unix.SYS_SETNS)
	sysSetsid       = uint32(unix.SYS_SETSID)
	sysSethostname  = uint32(unix.SYS_SETHOSTNAME)
	sysPrlimit      = uint32(unix.SYS_PRLIMIT64)
	sysUmask        = uint32(unix.SYS_UMASK)
	sysSetgroups    = uint32(unix.SYS_SETGROUPS)
	sysSetresgid    = uint32(unix.SYS_SETRESGID)
	sysSetresuid    = uint32(unix.SYS_SETRESUID)
	sysPrctl        = uint32(unix.SYS_PRCTL)
	sysCapset       = uint32(unix.SYS_CAPSET)
	sysSeccomp      = uint32(unix.SYS_SECCOMP)
	sysExecve       = uint32(unix.SYS_EXECVE)
	sysFaccessat2   = uint32(unix.SYS_FACCESSAT2)
	sysDup3         = uint32(unix.SYS_DUP3)
	sysIoctl        = uint32(unix.SYS_IOCTL)
	sysSendmsg      = uint32(unix.SYS_SENDMSG)
	sysCloseRange   = uint32(unix.SYS_CLOSE_RANGE)
	sysKeyctl       = uint32(unix.SYS_KEYCTL)
	sysPpoll        = uint32(unix.SYS_PPOLL)
)

const atFDCWD = -100

func cwd() arg { return imm(int64(atFDCWD)) }

// openHow puts struct open_how into the image; open(2)'s arguments go with its
// size.
func (im *image) openHow(flags, mode, resolve uint64) (how ptr, size arg) {
	return im.words(flags, mode, resolve), imm(24)
}

// mountAttr puts struct mount_attr into the image.
func (im *image) mountAttr(set, clear, propagation uint64) (attr ptr, size arg) {
	return im.words(set, clear, propagation, 0), imm(32)
}

// writeFile writes text to a file that is named from this process's root.
func (im *image) writeFile(what, path, text string) *insn {
	fd := im.reg()
	im.do(what, sysOpenat, cwd(), im.str(path).arg(), imm(unix.O_WRONLY|unix.O_CLOEXEC)).into(fd)
	i := im.do(what, sysWrite, fd.arg(), im.str(text).arg(), imm(len(text)))
	im.close(fd)
	return i
}

// setns joins the namespace that path is of.
func (im *image) setns(path string, kind int) {
	fd := im.reg()
	what := "join namespace " + path
	im.do(what, sysOpenat, cwd(), im.str(path).arg(), imm(unix.O_RDONLY|unix.O_CLOEXEC)).into(fd)
	im.do(what, sysSetns, fd.arg(), imm(kind))
	im.close(fd)
}

// sendFile sends the descriptor in fd over the socket in sock: struct msghdr
// with one SCM_RIGHTS message, into which the number is stored at run time.
func (im *image) sendFile(what string, sock, fd reg) {
	byteToSend := im.bytes([]byte{'t'})
	iov := im.words(uint64(byteToSend), 1)
	control := make([]byte, 24)
	binary.LittleEndian.PutUint64(control, 20) // cmsg_len: header of 16 and an int
	binary.LittleEndian.PutUint32(control[8:], unix.SOL_SOCKET)
	binary.LittleEndian.PutUint32(control[12:], unix.SCM_RIGHTS)
	cmsg := im.bytes(control)
	msg := im.words(0, 0, uint64(iov), 1, uint64(cmsg), 24, 0)
	im.do(what, opStore32, (cmsg + 16).arg(), fd.arg())
	im.do(what, sysSendmsg, sock.arg(), msg.arg(), imm(unix.MSG_NOSIGNAL))
}
