package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage of a set of processes.
type usage struct {
	PSS int64         // bytes
	CPU time.Duration // since their start
}

// measure sums up processes that match; a process that ends meanwhile does not count.
func measure(match func(pid int, exe string) bool) (usage, error) {
	var u usage
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return u, err
	}
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
		if !match(pid, exe) {
			continue
		}
		u.PSS += pss(pid)
		u.CPU += cpu(pid)
	}
	return u, nil
}

func pss(pid int) int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// cpu is user and system time in /proc/pid/stat, in ticks of 10 ms.
func cpu(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const user, system = 11, 12 // behind the command's name
	if len(fields) <= system {
		return 0
	}
	a, _ := strconv.ParseInt(fields[user], 10, 64)
	b, _ := strconv.ParseInt(fields[system], 10, 64)
	return time.Duration(a+b) * 10 * time.Millisecond
}
