package libcontainer

import (
	"encoding/binary"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// A profile that denies what it does not name denies what did not exist when it
// was written. C libraries try new calls and fall back on ENOSYS, but not on
// EPERM; so a call with a number above all that the profile names is answered
// with ENOSYS, in front of the filter. Such a profile cannot have meant it.

// auditArch is how a filter sees an architecture: AUDIT_ARCH_*.
var auditArch = map[libseccomp.ScmpArch]uint32{
	libseccomp.ArchAMD64: 0xc000003e, libseccomp.ArchX32: 0xc000003e, libseccomp.ArchX86: 0x40000003,
	libseccomp.ArchARM64: 0xc00000b7, libseccomp.ArchARM: 0x40000028,
}

// x32Bit is set in the numbers of x32's calls, which share amd64's value above.
const x32Bit = 0x40000000

// enosysStub is the code to go in front of a filter; none if the profile's
// default is to allow, or if an architecture is not known here.
func enosysStub(profile *specs.LinuxSeccomp) ([]byte, error) {
	if profile.DefaultAction != specs.ActErrno && profile.DefaultAction != specs.ActTrap &&
		profile.DefaultAction != specs.ActKill && profile.DefaultAction != specs.ActKillProcess && profile.DefaultAction != specs.ActKillThread {
		return nil, nil
	}
	if profile.DefaultErrnoRet != nil && *profile.DefaultErrnoRet == uint(unix.ENOSYS) {
		return nil, nil
	}
	last, err := lastCalls(profile)
	if err != nil {
		return nil, err
	}
	// For each architecture: if it is this one, compare and leave; else pass on.
	//   ld arch
	//   jne A, next;  ld nr;  (jset x32 ...);  jgt last, 0, 1;  ret ENOSYS;  ld arch
	code := []unix.SockFilter{load(4)}
	native, x32 := last[libseccomp.ArchAMD64], last[libseccomp.ArchX32]
	for arch, nr := range last {
		if arch == libseccomp.ArchX32 {
			continue // with amd64
		}
		var block []unix.SockFilter
		if arch == libseccomp.ArchAMD64 && x32 > 0 {
			block = []unix.SockFilter{
				load(0),
				{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: x32Bit, Jt: 1},
				{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: native, Jt: 1, Jf: 2},
				{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: x32, Jf: 1},
				retENOSYS,
				load(4),
			}
		} else {
			block = []unix.SockFilter{
				load(0),
				{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: nr, Jf: 1},
				retENOSYS,
				load(4),
			}
		}
		code = append(code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: auditArch[arch], Jf: uint8(len(block))})
		code = append(code, block...)
	}
	return render(code), nil
}

var retENOSYS = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}

// load loads the word at an offset of struct seccomp_data: 0 the call's
// number, 4 the architecture.
func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// lastCalls is the largest number that a profile names, by architecture.
func lastCalls(profile *specs.LinuxSeccomp) (map[libseccomp.ScmpArch]uint32, error) {
	native, err := libseccomp.GetNativeArch()
	if err != nil {
		return nil, err
	}
	archs := []libseccomp.ScmpArch{native}
	for _, name := range profile.Architectures {
		arch, err := archOf(name)
		if err != nil {
			return nil, err
		}
		archs = append(archs, arch)
	}
	last := map[libseccomp.ScmpArch]uint32{}
	for _, arch := range archs {
		if _, known := auditArch[arch]; !known {
			return nil, nil
		}
		for _, rule := range profile.Syscalls {
			for _, name := range rule.Names {
				nr, err := libseccomp.GetSyscallFromNameByArch(name, arch)
				if err == nil && nr > 0 { // below 0: libseccomp's own, for calls that an architecture lacks
					last[arch] = max(last[arch], uint32(nr))
				}
			}
		}
	}
	if len(last) == 0 {
		return nil, errNoSyscalls
	}
	return last, nil
}

func render(code []unix.SockFilter) []byte {
	var out []byte
	for _, i := range code {
		out = binary.LittleEndian.AppendUint16(out, i.Code)
		out = append(out, i.Jt, i.Jf)
		out = binary.LittleEndian.AppendUint32(out, i.K)
	}
	return out
}
