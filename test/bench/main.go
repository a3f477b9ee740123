package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/test/lab"
)

func main() {
	out := flag.String("json", "", "write the figures to this file too")
	rounds := flag.Int("rounds", 20, "pods measured one after another, for each row of the CRI table")
	what := flag.String("only", "", "server or cri; empty: both")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *out, *what, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, what string, rounds int) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	r := &report{Machine: machine()}
	var errs []error
	if what != "cri" {
		errs = append(errs, benchServer(ctx, r))
	}
	if what != "server" {
		errs = append(errs, benchCRI(ctx, r, rounds))
	}
	errs = append(errs, r.table(os.Stdout))
	if out != "" {
		f, err := os.Create(out)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, r.json(f), f.Close())
	} else {
		errs = append(errs, r.json(os.Stdout))
	}
	return errors.Join(errs...)
}

func machine() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return fmt.Sprintf("%d cores, Linux %s, %s", runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), runtime.GOARCH)
}

// benchCRI measures our runtime and, if it is there, the peer, in turns of the same work.
func benchCRI(ctx context.Context, r *report, rounds int) (err error) {
	dir, err := os.MkdirTemp("", "keelson-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	images := filepath.Join(dir, "busybox.tar")
	if err := archive(images); err != nil {
		return err
	}
	c, err := lab.New(lab.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Remove(context.WithoutCancel(ctx))) }()
	if err := c.Start(); err != nil {
		return err
	}
	if err := c.WaitReady(ctx); err != nil {
		return err
	}
	if text, err := c.Run(ctx, "image", "import", images); err != nil {
		return fmt.Errorf("import: %w: %s", err, text)
	}
	ours, err := dial(c.CRISocket, busyboxImage, "/keelson-bench-ours")
	if err != nil {
		return err
	}
	defer ours.Close()
	var theirs *runner
	p, peerErr := startPeer(ctx, images)
	if peerErr != nil {
		r.Notes = append(r.Notes, "no peer: "+peerErr.Error())
	} else {
		defer func() { err = errors.Join(err, p.stop()) }()
		r.Peer = p.name
		if theirs, err = dial(p.socket, busyboxImage, "/keelson-bench-peer"); err != nil {
			return err
		}
		defer theirs.Close()
	}
	return compare(ctx, r, ours, theirs, rounds)
}

func compare(ctx context.Context, r *report, ours, theirs *runner, rounds int) error {
	for _, network := range []struct {
		name string
		host bool
	}{{"pod network", false}, {"host network", true}} {
		mine, err := ours.sequence(ctx, rounds, network.host)
		if err != nil {
			return fmt.Errorf("ours, %s: %w", network.name, err)
		}
		var other []times
		if theirs != nil {
			if other, err = theirs.sequence(ctx, rounds, network.host); err != nil {
				r.Notes = append(r.Notes, fmt.Sprintf("peer, %s: %v", network.name, err))
			}
		}
		for _, row := range []struct {
			name string
			pick func(times) time.Duration
		}{
			{"pod up, ", func(t times) time.Duration { return t.up }},
			{"pod down, ", func(t times) time.Duration { return t.down }},
			{"exec true, ", func(t times) time.Duration { return t.exec }},
		} {
			f := r.add(row.name+network.name+", c=1, p50", "ms", quantile(durations(mine, row.pick), 0.5), "")
			if other != nil {
				v := quantile(durations(other, row.pick), 0.5)
				f.Peer = &v
			}
		}
	}
	if err := compareExecs(ctx, r, ours, theirs); err != nil {
		return err
	}
	const window = 10 * time.Second
	rate, err := ours.parallel(ctx, 10, window)
	if err != nil {
		return fmt.Errorf("ours, c=10: %w", err)
	}
	f := r.add("full pod cycles, pod network, c=10", "1/s", rate, "more is better")
	if theirs == nil {
		return nil
	}
	if rate, err = theirs.parallel(ctx, 10, window); err != nil {
		r.Notes = append(r.Notes, fmt.Sprintf("peer, c=10: %v", err))
		return nil
	}
	f.Peer = &rate
	return nil
}

func durations(list []times, pick func(times) time.Duration) []time.Duration {
	out := make([]time.Duration, 0, len(list))
	for _, t := range list {
		out = append(out, pick(t))
	}
	return out
}

// compareExecs measures exec under ten clients at a time.
func compareExecs(ctx context.Context, r *report, ours, theirs *runner) error {
	const clients, each = 10, 10
	mine, err := ours.execs(ctx, clients, each)
	if err != nil {
		return fmt.Errorf("ours, exec, c=10: %w", err)
	}
	f := r.add("exec true, pod network, c=10, p50", "ms", quantile(mine, 0.5), "")
	if theirs == nil {
		return nil
	}
	other, err := theirs.execs(ctx, clients, each)
	if err != nil {
		r.Notes = append(r.Notes, fmt.Sprintf("peer, exec, c=10: %v", err))
		return nil
	}
	v := quantile(other, 0.5)
	f.Peer = &v
	return nil
}
