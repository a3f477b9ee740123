package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// options of a run.
type options struct {
	json   string
	only   string // parts by name, with commas; empty: all
	rounds int
	peer   string // a CRI socket
	noPull bool
}

func main() {
	var o options
	flag.StringVar(&o.json, "json", "", "write the figures to this file instead of to standard output")
	flag.IntVar(&o.rounds, "rounds", 20, "pods measured one after another, for each row of the CRI table")
	flag.StringVar(&o.only, "only", "", "parts to measure: server, workload, service, cri; empty: all")
	flag.StringVar(&o.peer, "peer", "", "the CRI socket of a runtime to measure beside ours; empty: Debian's containerd with runc and with crun, if installed")
	flag.BoolVar(&o.noPull, "no-pull", false, "leave out the pull of a large image")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	r := &report{Machine: machine()}
	var errs []error
	for _, part := range []struct {
		name string
		run  func(context.Context, *report, options) error
	}{{"server", benchServer}, {"workload", benchWorkload}, {"service", benchService}, {"cri", benchCRI}} {
		if o.only == "" || strings.Contains(","+o.only+",", ","+part.name+",") {
			if err := part.run(ctx, r, o); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", part.name, err))
			}
		}
	}
	errs = append(errs, r.table(os.Stdout))
	if o.json == "" {
		return errors.Join(append(errs, r.json(os.Stdout))...)
	}
	f, err := os.Create(o.json)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, r.json(f), f.Close())...)
}

func machine() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return fmt.Sprintf("%d cores, Linux %s, %s", runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), runtime.GOARCH)
}
