package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/test/lab"
)

const (
	density     = 50 // pods
	criIdle     = 10 * time.Second
	cycleWindow = 10 * time.Second
	execClients = 10
	execsEach   = 10
	countedPods = 5
	statsRounds = 20
)

// row is one line of the table, measured on one runtime.
type row struct {
	name, unit, target string
	value              float64
}

// stage measures one thing on a runtime.
type stage struct {
	name string
	run  func(context.Context, *runner) ([]row, error)
}

// benchCRI measures our runtime alone (`keelson cri`), and the peers, in turns of the same work. A peer's socket may be given;
// otherwise Debian's containerd is started, with runc and with crun.
func benchCRI(ctx context.Context, r *report, o options) (err error) {
	images, err := serveImages(!o.noPull)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, images.close()) }()
	c, err := lab.New(lab.Options{Runtime: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Remove(context.WithoutCancel(ctx))) }()
	if err := c.Start(); err != nil {
		return err
	}
	if err := waitRuntime(ctx, c.CRISocket, nil); err != nil {
		return fmt.Errorf("keelson cri: %w\n%s", err, c.Log())
	}
	ours, err := dial("keelson", c.CRISocket, "", images.busybox)
	if err != nil {
		return err
	}
	keeper, err := c.Keeper()
	if err != nil {
		return err
	}
	ours.fixed = append(ours.fixed, keeper)
	runners := []*runner{ours}
	peers, stop, err := dialPeers(ctx, o.peer, images)
	if err != nil {
		r.note("no peer: %v", err)
	}
	defer func() { err = errors.Join(err, stop()) }()
	runners = append(runners, peers...)
	for _, p := range peers {
		r.Peers = append(r.Peers, p.name)
	}
	for _, s := range stages(o, images) {
		if err := r.compare(ctx, s, runners); err != nil {
			return fmt.Errorf("%w\n%s", err, c.Log())
		}
	}
	return nil
}

func dialPeers(ctx context.Context, socket string, images *images) (list []*runner, stop func() error, err error) {
	stop = func() error { return nil }
	names := []struct{ name, handler string }{{"containerd+runc", "runc"}, {"containerd+crun", "crun"}}
	if socket != "" {
		names = names[:1]
		names[0].name, names[0].handler = "peer", ""
	} else {
		p, err := startPeer(ctx, images.pause)
		if err != nil {
			return nil, stop, err
		}
		socket, stop = p.socket, p.stop
	}
	for _, n := range names {
		peer, err := dial(n.name, socket, n.handler, images.busybox)
		if err != nil {
			return list, stop, err
		}
		version, err := peer.runtime.Version(ctx, &runtimeapi.VersionRequest{})
		if err != nil {
			return list, stop, err
		}
		if n.handler == "" {
			peer.name = version.RuntimeName + " " + version.RuntimeVersion
		}
		list = append(list, peer)
	}
	return list, stop, nil
}

// compare runs a stage on each runtime. What ours cannot do is an error, what a peer cannot do a note.
func (r *report) compare(ctx context.Context, s stage, runners []*runner) error {
	rows, err := s.run(ctx, runners[0])
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	first := len(r.Figures)
	for _, w := range rows {
		r.add(w.name, w.unit, w.value, w.target).Peers = make([]*float64, len(runners)-1)
	}
	for i, p := range runners[1:] {
		theirs, err := s.run(ctx, p)
		if err != nil {
			r.note("%s, %s: %v", p.name, s.name, err)
			continue
		}
		for j := range theirs {
			r.Figures[first+j].Peers[i] = &theirs[j].value
		}
	}
	return nil
}

func stages(o options, images *images) []stage {
	list := []stage{
		{"image", func(ctx context.Context, r *runner) ([]row, error) { return nil, r.pull(ctx, r.image) }},
		{"fresh", func(ctx context.Context, r *runner) ([]row, error) {
			if err := settled(ctx, r.fixed); err != nil {
				return nil, err
			}
			return []row{{"daemon, fresh", "MB PSS", "<= 40", float64(measure(r.fixed).PSS) / 1e6}}, nil
		}},
		{"pods on the pod network", func(ctx context.Context, r *runner) ([]row, error) { return cycles(ctx, r, o.rounds, false) }},
		{"pods on the host network", func(ctx context.Context, r *runner) ([]row, error) { return cycles(ctx, r, o.rounds, true) }},
		{"exec, c=10", func(ctx context.Context, r *runner) ([]row, error) {
			d, err := r.execs(ctx, execClients, execsEach)
			return []row{{"exec true, pod network, c=10, p50", "ms", "", quantile(d, 0.5)}}, err
		}},
		{"cycles, c=10", func(ctx context.Context, r *runner) ([]row, error) {
			rate, err := r.parallel(ctx, 10, cycleWindow)
			return []row{{"full pod cycles, pod network, c=10", "1/s", ">= 2x", rate}}, err
		}},
		{"programs of a pod's life", programs},
		{"density", dense},
	}
	if o.noPull {
		return list
	}
	for _, i := range images.large {
		list = append(list, stage{"pull, " + i.name, func(ctx context.Context, r *runner) ([]row, error) {
			began := time.Now()
			if err := r.pull(ctx, i.ref); err != nil {
				return nil, err
			}
			took := time.Since(began).Seconds()
			_, err := r.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: i.ref}})
			return []row{{fmt.Sprintf("pull and unpack %d MB, %d layers, %s", largeSize/1_000_000, largeLayers, i.name), "s", "<= 1/2", took}}, err
		}})
	}
	return list
}

// cycles measures pods one after another: in time, and in the time of the processor that the runtime's own processes use.
func cycles(ctx context.Context, r *runner, rounds int, host bool) ([]row, error) {
	network := "pod network"
	if host {
		network = "host network"
	}
	list, err := r.sequence(ctx, rounds, host)
	if err != nil {
		return nil, err
	}
	pick := func(f func(times) time.Duration) float64 { return quantile(durations(list, f), 0.5) }
	return []row{
		{"pod up, " + network + ", c=1, p50", "ms", "<= 1/2", pick(func(t times) time.Duration { return t.up })},
		{"pod down, " + network + ", c=1, p50", "ms", "<= 1/2", pick(func(t times) time.Duration { return t.down })},
		{"exec true, " + network + ", c=1, p50", "ms", "<= 1", pick(func(t times) time.Duration { return t.exec })},
	}, nil
}

// programs counts execve calls of a pod with one container, the workload's own among them, without an exec in it.
func programs(ctx context.Context, r *runner) ([]row, error) {
	counter, err := countExecs(r.fixed)
	if err != nil {
		return nil, err
	}
	for range countedPods {
		pod, container, err := r.up(ctx)
		if err == nil {
			err = r.down(ctx, pod, container)
		}
		if err != nil {
			_, stopErr := counter.stop()
			return nil, errors.Join(err, stopErr)
		}
	}
	n, err := counter.stop()
	return []row{{"programs executed per pod life", "execve", "<= 6", float64(n) / countedPods}}, err
}

// dense measures what pods cost that do nothing.
func dense(ctx context.Context, r *runner) (rows []row, err error) {
	before, others := measure(r.fixed), monitors()
	type pair struct{ pod, container string }
	var pods []pair
	defer func() {
		for _, p := range pods {
			err = errors.Join(err, r.down(ctx, p.pod, p.container))
		}
	}()
	var ups []time.Duration
	for range density {
		began := time.Now()
		pod, container, err := r.up(ctx)
		if err != nil {
			return nil, err
		}
		ups, pods = append(ups, time.Since(began)), append(pods, pair{pod, container})
	}
	own := append([]int(nil), r.fixed...)
	for pid := range monitors() {
		if !others[pid] {
			own = append(own, pid)
		}
	}
	var asked []time.Duration
	for range statsRounds {
		began := time.Now()
		if _, err := r.runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{}); err != nil {
			return nil, err
		}
		asked = append(asked, time.Since(began))
	}
	if err := settled(ctx, own); err != nil {
		return nil, err
	}
	quiet, err := idle(ctx, own, criIdle)
	after := measure(own)
	return []row{
		{fmt.Sprintf("pod up, the last ten of %d, p50", density), "ms", "flat", quantile(ups[density-10:], 0.5)},
		{fmt.Sprintf("ListContainerStats with %d pods, p50", density), "ms", "<= 1/8", quantile(asked, 0.5)},
		{fmt.Sprintf("idle CPU with %d pods", density), "ms/s", "< 2", quiet},
		{"memory per idle pod without its workload", "MB PSS", "<= 0.2", float64(after.PSS-before.PSS) / 1e6 / density},
	}, err
}

func durations(list []times, pick func(times) time.Duration) []time.Duration {
	out := make([]time.Duration, 0, len(list))
	for _, t := range list {
		out = append(out, pick(t))
	}
	return out
}
