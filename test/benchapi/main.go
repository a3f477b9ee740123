package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"text/tabwriter"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/test/lab"
)

// row is one figure; Peer is nil without a peer, or where only ours can be measured.
type row struct {
	What string   `json:"what"`
	Unit string   `json:"unit"`
	Ours float64  `json:"ours"`
	Peer *float64 `json:"peer,omitempty"`
}

type settings struct {
	peer, out string
	length    time.Duration // of each measurement of throughput
	objects   []int         // memory is measured at these
	scale     bool          // only what grows: watchers and objects
}

func main() {
	var s settings
	many := flag.Int("objects", 100_000, "the larger number of objects that memory and start are measured with; the smaller is 10,000")
	flag.StringVar(&s.peer, "peer", "", "kubeconfig of another cluster to measure beside")
	flag.StringVar(&s.out, "json", "", "write the figures to this file too")
	flag.DurationVar(&s.length, "length", 2*time.Second, "length of each measurement of throughput")
	flag.BoolVar(&s.scale, "scale", false, "only what grows: watchers, objects, large lists")
	flag.Parse()
	s.objects = []int{10_000}
	if *many > s.objects[0] {
		s.objects = append(s.objects, *many)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench-api:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) (err error) {
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
	ours, err := newTarget(c.Kubeconfig)
	if err != nil {
		return err
	}
	var peer *target
	if s.peer != "" {
		if peer, err = newTarget(s.peer); err != nil {
			return fmt.Errorf("peer: %w", err)
		}
	}
	var rows []row
	if !s.scale {
		if rows, err = throughput(ctx, s, ours, peer); err != nil {
			return err
		}
	}
	fan, err := fanOut(ctx, ours, peer)
	if err != nil {
		return err
	}
	more, err := growth(ctx, s, c, ours, peer)
	rows = append(append(rows, fan...), more...)
	return errors.Join(err, report(os.Stdout, rows), writeJSON(s.out, rows))
}

func newTarget(kubeconfig string) (*target, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	return &target{config: config}, nil
}

func report(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "API server, %d cores\tours\tpeer\tours/peer\t\n", runtime.NumCPU())
	for _, r := range rows {
		peer, ratio := "-", "-"
		if r.Peer != nil {
			peer, ratio = fmt.Sprintf("%.1f", *r.Peer), fmt.Sprintf("%.2f", r.Ours / *r.Peer)
		}
		fmt.Fprintf(t, "%s, %s\t%.1f\t%s\t%s\t\n", r.What, r.Unit, r.Ours, peer, ratio)
	}
	return t.Flush()
}

func writeJSON(path string, rows []row) error {
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil || path == "" {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
