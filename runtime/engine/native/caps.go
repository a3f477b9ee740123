package native

import (
	"encoding/binary"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// capNumbers are the capabilities by name, as linux/capability.h has them.
var capNumbers = map[string]uint{
	"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2, "CAP_FOWNER": 3, "CAP_FSETID": 4, "CAP_KILL": 5,
	"CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SETPCAP": 8, "CAP_LINUX_IMMUTABLE": 9, "CAP_NET_BIND_SERVICE": 10,
	"CAP_NET_BROADCAST": 11, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_IPC_LOCK": 14, "CAP_IPC_OWNER": 15,
	"CAP_SYS_MODULE": 16, "CAP_SYS_RAWIO": 17, "CAP_SYS_CHROOT": 18, "CAP_SYS_PTRACE": 19, "CAP_SYS_PACCT": 20,
	"CAP_SYS_ADMIN": 21, "CAP_SYS_BOOT": 22, "CAP_SYS_NICE": 23, "CAP_SYS_RESOURCE": 24, "CAP_SYS_TIME": 25,
	"CAP_SYS_TTY_CONFIG": 26, "CAP_MKNOD": 27, "CAP_LEASE": 28, "CAP_AUDIT_WRITE": 29, "CAP_AUDIT_CONTROL": 30,
	"CAP_SETFCAP": 31, "CAP_MAC_OVERRIDE": 32, "CAP_MAC_ADMIN": 33, "CAP_SYSLOG": 34, "CAP_WAKE_ALARM": 35,
	"CAP_BLOCK_SUSPEND": 36, "CAP_AUDIT_READ": 37, "CAP_PERFMON": 38, "CAP_BPF": 39, "CAP_CHECKPOINT_RESTORE": 40,
}

// capSets are a process's sets as bits.
type capSets struct{ bounding, permitted, effective, inheritable, ambient uint64 }

// capabilities turns names into bits. Names that this build does not know are
// passed over, as the OCI spec has it for those that a kernel does not know.
func capabilities(c *specs.LinuxCapabilities) capSets {
	if c == nil {
		return capSets{}
	}
	bits := func(names []string) (set uint64) {
		for _, name := range names {
			if n, ok := capNumbers[name]; ok {
				set |= 1 << n
			}
		}
		return set
	}
	return capSets{bits(c.Bounding), bits(c.Permitted), bits(c.Effective), bits(c.Inheritable), bits(c.Ambient)}
}

func (b *builder) dropBounding(keep uint64) {
	for n := range b.host.LastCap + 1 {
		if keep&(1<<n) == 0 {
			b.image.do("drop capability", sysPrctl, imm(unix.PR_CAPBSET_DROP), imm(n), imm(0), imm(0), imm(0))
		}
	}
}

// capset sets the three sets, of which only what this process has can be had.
func (b *builder) capset(inheritable, permitted, effective uint64, wanted bool) {
	if !wanted {
		return
	}
	im := b.image
	known := uint64(1)<<(b.host.LastCap+1) - 1
	own := b.host.Permitted & known
	header := im.words(unix.LINUX_CAPABILITY_VERSION_3)
	var data []byte
	for half := range 2 {
		for _, set := range []uint64{effective & own, permitted & own, inheritable & own} {
			data = binary.LittleEndian.AppendUint32(data, uint32(set>>(32*half)))
		}
	}
	im.do("set capabilities", sysCapset, header.arg(), im.bytes(data).arg())
}

func (b *builder) ambient(set uint64) {
	im := b.image
	im.do("clear ambient capabilities", sysPrctl, imm(unix.PR_CAP_AMBIENT), imm(unix.PR_CAP_AMBIENT_CLEAR_ALL), imm(0), imm(0), imm(0)).ignore()
	for n := range b.host.LastCap + 1 {
		if set&(1<<n) != 0 {
			im.do("raise ambient capability", sysPrctl, imm(unix.PR_CAP_AMBIENT), imm(unix.PR_CAP_AMBIENT_RAISE), imm(n), imm(0), imm(0))
		}
	}
}
