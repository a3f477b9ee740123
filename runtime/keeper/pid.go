package keeper

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// StartTicks is the start time of process pid in clock ticks since boot. With
// the pid and the boot id it names a process for good.
func StartTicks(pid int) (uint64, error) {
	name := fmt.Sprintf("/proc/%d/stat", pid)
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, fmt.Errorf("start time of process %d: %w", pid, err)
	}
	// Field 2 is the program's name in parentheses and may hold anything.
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return 0, fmt.Errorf("start time of process %d: %s is odd", pid, name)
	}
	fields := bytes.Fields(text[end+1:])
	const at = 22 - 3 // field 22, of which two are cut off and counting is from 0
	if len(fields) <= at {
		return 0, fmt.Errorf("start time of process %d: %s is short", pid, name)
	}
	return strconv.ParseUint(string(fields[at]), 10, 64)
}
