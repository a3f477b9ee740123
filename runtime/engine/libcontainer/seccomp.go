package libcontainer

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/bundle"
)

// Owns says that a child is the engine's: its helpers live only while a start
// or exec is under way, so none is at other times.
func (e *Engine) Owns(int) bool { return false }

// Seccomp compiles a profile with libseccomp, which takes tens of
// milliseconds: so it is done once for each, not in each container.
func (e *Engine) Seccomp(from, to string) error {
	var profile specs.LinuxSeccomp
	if err := bundle.ReadJSON(from, &profile); err != nil {
		return fmt.Errorf("compile seccomp profile: %w", err)
	}
	code, err := compile(&profile)
	if err != nil {
		return fmt.Errorf("compile seccomp profile: %w", err)
	}
	if err := os.WriteFile(to+".new", code, 0o600); err != nil {
		return fmt.Errorf("compile seccomp profile: %w", err)
	}
	return os.Rename(to+".new", to)
}

func compile(profile *specs.LinuxSeccomp) ([]byte, error) {
	fallback, err := action(profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	filter, err := libseccomp.NewFilter(fallback)
	if err != nil {
		return nil, err
	}
	defer filter.Release()
	for _, arch := range profile.Architectures {
		a, err := archOf(arch)
		if err != nil {
			return nil, err
		}
		if err := filter.AddArch(a); err != nil {
			return nil, fmt.Errorf("architecture %s: %w", arch, err)
		}
	}
	// A tree instead of a list: system calls at its end cost less. libseccomp
	// does not do well with few rules.
	if len(profile.Syscalls) > 4 {
		_ = filter.SetOptimize(2)
	}
	for _, rule := range profile.Syscalls {
		if err := addRule(filter, rule, fallback); err != nil {
			return nil, err
		}
	}
	code, err := export(filter)
	if err != nil {
		return nil, err
	}
	stub, err := enosysStub(profile)
	if err != nil {
		return nil, err
	}
	return append(stub, code...), nil
}

// export is the filter's code. (ExportBPFMem would need libseccomp 2.6.)
func export(filter *libseccomp.ScmpFilter) ([]byte, error) {
	fd, err := unix.MemfdCreate("seccomp", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	mem := os.NewFile(uintptr(fd), "seccomp")
	defer mem.Close()
	if err := filter.ExportBPF(mem); err != nil {
		return nil, err
	}
	if _, err := mem.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(mem)
}

// archOf reads SCMP_ARCH_X86_64 and the like.
func archOf(name specs.Arch) (libseccomp.ScmpArch, error) {
	const prefix = "SCMP_ARCH_"
	if len(name) <= len(prefix) {
		return libseccomp.ArchInvalid, fmt.Errorf("architecture %q is unknown", name)
	}
	known := map[string]string{
		"X86_64": "amd64", "AARCH64": "arm64", "PPC64LE": "ppc64le",
	}
	short := string(name[len(prefix):])
	if other, ok := known[short]; ok {
		short = other
	}
	return libseccomp.GetArchFromString(short)
}

func action(a specs.LinuxSeccompAction, errnoRet *uint) (libseccomp.ScmpAction, error) {
	code := int16(unix.EPERM)
	if errnoRet != nil {
		if *errnoRet > math.MaxInt16 {
			return libseccomp.ActInvalid, fmt.Errorf("errno %d is out of range", *errnoRet)
		}
		code = int16(*errnoRet)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return libseccomp.ActKillThread, nil
	case specs.ActKillProcess:
		return libseccomp.ActKillProcess, nil
	case specs.ActErrno:
		return libseccomp.ActErrno.SetReturnCode(code), nil
	case specs.ActTrap:
		return libseccomp.ActTrap, nil
	case specs.ActAllow:
		return libseccomp.ActAllow, nil
	case specs.ActTrace:
		return libseccomp.ActTrace.SetReturnCode(code), nil
	case specs.ActLog:
		return libseccomp.ActLog, nil
	}
	return libseccomp.ActInvalid, fmt.Errorf("action %q is not supported", a)
}

func addRule(filter *libseccomp.ScmpFilter, rule specs.LinuxSyscall, fallback libseccomp.ScmpAction) error {
	act, err := action(rule.Action, rule.ErrnoRet)
	if err != nil {
		return err
	}
	if act == fallback {
		return nil // says nothing new, and libseccomp refuses it
	}
	conditions, err := conditions(rule.Args)
	if err != nil {
		return err
	}
	for _, name := range rule.Names {
		nr, err := libseccomp.GetSyscallFromName(name)
		if err != nil {
			continue // unknown here: the kernel does not have it either
		}
		for _, all := range conditions {
			if len(all) == 0 {
				err = filter.AddRule(nr, act)
			} else {
				err = filter.AddRuleConditional(nr, act, all)
			}
			if err != nil {
				return fmt.Errorf("rule for %s: %w", name, err)
			}
		}
	}
	return nil
}

// conditions are those of a rule: each inner list is one rule of libseccomp's.
// It does not take two conditions on one argument; as runc and Docker have it,
// such a rule becomes several, one for each.
func conditions(args []specs.LinuxSeccompArg) ([][]libseccomp.ScmpCondition, error) {
	var all []libseccomp.ScmpCondition
	var each [][]libseccomp.ScmpCondition
	used, twice := map[uint]bool{}, false
	for _, arg := range args {
		op, ok := compareOps[arg.Op]
		if !ok {
			return nil, fmt.Errorf("comparison %q is unknown", arg.Op)
		}
		values := []uint64{arg.Value}
		if op == libseccomp.CompareMaskedEqual {
			values = append(values, arg.ValueTwo)
		}
		c, err := libseccomp.MakeCondition(arg.Index, op, values...)
		if err != nil {
			return nil, err
		}
		twice = twice || used[arg.Index]
		used[arg.Index] = true
		all = append(all, c)
		each = append(each, []libseccomp.ScmpCondition{c})
	}
	if twice {
		return each, nil
	}
	return [][]libseccomp.ScmpCondition{all}, nil
}

var compareOps = map[specs.LinuxSeccompOperator]libseccomp.ScmpCompareOp{
	specs.OpEqualTo: libseccomp.CompareEqual, specs.OpNotEqual: libseccomp.CompareNotEqual,
	specs.OpGreaterThan: libseccomp.CompareGreater, specs.OpGreaterEqual: libseccomp.CompareGreaterEqual,
	specs.OpLessThan: libseccomp.CompareLess, specs.OpLessEqual: libseccomp.CompareLessOrEqual,
	specs.OpMaskedEqual: libseccomp.CompareMaskedEqual,
}

var errNoSyscalls = errors.New("the profile names no system call that is known")
