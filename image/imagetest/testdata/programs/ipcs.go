// ipcs prints the System V shared memory segments.
package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	b, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print("------ Shared Memory Segments --------\nkey        shmid      owner      perms      bytes      nattch     status\n")
	for _, line := range strings.Split(string(b), "\n")[1:] {
		if f := strings.Fields(line); len(f) > 6 {
			fmt.Printf("%-10s %-10s %-10s %-10s %-10s %-10s\n", f[0], f[1], f[7], f[2], f[3], f[6])
		}
	}
}
