package translate

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The kernel's real-time signals as glibc numbers them (signal(7)).
const (
	rtMin = 34
	rtMax = 64
)

// StopSignal is the signal that asks the container to end, and its name in the
// CRI: the request's, else the image's, else SIGTERM. A name that the image got
// wrong is ErrInvalid.
func StopSignal(asked runtimeapi.Signal, image ocispec.ImageConfig) (syscall.Signal, runtimeapi.Signal, error) {
	name := image.StopSignal
	if asked != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		full, ok := runtimeapi.Signal_name[int32(asked)]
		if !ok {
			return 0, 0, invalid("unknown stop signal %d", asked)
		}
		name = strings.TrimPrefix(full, "SIGNAL_")
	}
	if name == "" {
		name = "SIGTERM"
	}
	sig, err := parseSignal(name)
	if err != nil {
		return 0, 0, err
	}
	return sig, signalEnum(sig), nil
}

func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > rtMax {
			return 0, invalid("stop signal %q is not between 1 and %d", s, rtMax)
		}
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	// SIGRTMIN+3 is an image's spelling, SIGRTMINPLUS3 the CRI's.
	name = strings.NewReplacer("+", "PLUS", "-", "MINUS").Replace(name)
	for prefix, base := range map[string]int{"SIGRTMIN": rtMin, "SIGRTMAX": rtMax} {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		rest = strings.NewReplacer("PLUS", "+", "MINUS", "-").Replace(rest)
		off := 0
		if rest != "" {
			n, err := strconv.Atoi(rest)
			if err != nil {
				return 0, invalid("stop signal %q", s)
			}
			off = n
		}
		if base+off < rtMin || base+off > rtMax {
			return 0, invalid("stop signal %q is no real-time signal", s)
		}
		return syscall.Signal(base + off), nil
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, invalid("unknown stop signal %q", s)
}

// signalEnum is the CRI's name of a signal. Real-time signals 50 and above count
// down from SIGRTMAX there.
func signalEnum(sig syscall.Signal) runtimeapi.Signal {
	name := unix.SignalName(sig)
	switch n := int(sig); {
	case n == rtMin:
		name = "SIGRTMIN"
	case n > rtMin && n <= rtMin+15:
		name = fmt.Sprintf("SIGRTMINPLUS%d", n-rtMin)
	case n == rtMax:
		name = "SIGRTMAX"
	case n > rtMin && n < rtMax:
		name = fmt.Sprintf("SIGRTMAXMINUS%d", rtMax-n)
	}
	return runtimeapi.Signal(runtimeapi.Signal_value["SIGNAL_"+name])
}
