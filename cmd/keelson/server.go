package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// adminName is who makes the objects that a new cluster has, in the audit log.
const adminName = "keelson"

func serverCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "server", Short: "Run control plane and node in one process", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), o) },
	}
	o.serverFlags(cmd)
	return cmd
}

// profiles serves the process's profiles, in a build that has them.
var profiles = func() {}

// serve runs everything until ctx ends or a part fails. Pods outlive it.
func serve(ctx context.Context, o *options) error {
	began := time.Now()
	profiles()
	log, err := o.logging.logger()
	if err != nil {
		return err
	}
	libraryLogs(ctx, log)
	o.told.log(log)
	if os.Geteuid() != 0 {
		return errors.New("a node needs root: run it with sudo")
	}
	if err := o.finish(); err != nil {
		return err
	}
	i, err := claim(o)
	if err != nil {
		return err
	}
	defer i.release()
	if err := preflight(o, log); err != nil {
		return err
	}
	tell := systemdReady()
	group, ctx := errgroup.WithContext(ctx)
	p, err := newPlane(o, log)
	if err != nil {
		return err
	}
	together(ctx, group, task{"API server", p.server.Run},
		task{"kubeconfig", p.whenReady(func(context.Context) error {
			return errors.Join(p.server.WriteAdminKubeconfig(o.place.kubeconfig()), tell())
		})})
	group.Go(func() error { return runNode(ctx, o, p, log, began) })
	return group.Wait()
}

// systemdReady returns what tells systemd that the server is started: that is when kubectl works. The API server's library would say so
// as soon as its port is open, so the variable that it looks for is kept from it.
func systemdReady() func() error {
	socket := os.Getenv("NOTIFY_SOCKET")
	os.Unsetenv("NOTIFY_SOCKET")
	return func() error {
		_ = os.Setenv("NOTIFY_SOCKET", socket)
		_, err := daemon.SdNotify(true, daemon.SdNotifyReady)
		return err
	}
}

// runNode makes the node's parts and the controllers beside the starting API server and runs them; the node's are closed
// in the opposite order.
func runNode(ctx context.Context, o *options, p *plane, log *slog.Logger, began time.Time) error {
	n, err := newNode(ctx, o, log)
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	defer n.close()
	n.admin = p.adminRoutes
	k, err := n.kubelet(o, p, log)
	if err != nil {
		return fmt.Errorf("kubelet: %w", err)
	}
	system, watchSystem, err := p.systemInformers()
	if err != nil {
		return err
	}
	admin, err := kubernetes.NewForConfig(p.as(adminName, user.SystemPrivilegedGroup))
	if err != nil {
		return err
	}
	services, err := n.services(o, admin, p.shared, system, log)
	if err != nil {
		return fmt.Errorf("services: %w", err)
	}
	p.drivers = csiDrivers{n.drivers, k}
	control, err := p.control()
	if err != nil {
		return fmt.Errorf("control plane: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	together(ctx, group, n.tasks(o)...)
	together(ctx, group, services...)
	together(ctx, group, control...)
	together(ctx, group, task{"kubelet", k.Run}, watchSystem, task{"CSI drivers of the node", p.whenReady(n.drivers.Run)},
		task{"snapshots", p.whenReady(func(ctx context.Context) error {
			return schedule{cmp.Or(o.plane.SnapshotDir, o.place.snapshots()), o.plane.SnapshotEvery, o.plane.SnapshotKeep, p.server.Snapshot, p.log}.run(ctx)
		})},
		task{"DNS service", p.whenReady(func(ctx context.Context) error { return ensureDNSService(ctx, admin, o.plane.DNS) })},
		task{"storage class", p.whenReady(func(ctx context.Context) error { return ensureClass(ctx, admin) })},
		task{"ready", func(ctx context.Context) error {
			select {
			case <-k.Ready():
				log.Info("the node is ready", "node", o.node.Name, "api", p.server.URL(), "kubeconfig", o.place.kubeconfig(), "after", time.Since(began).Round(time.Millisecond))
				return errors.Join(markControlPlane(ctx, admin, o.node.Name), settle(ctx, log))
			case <-ctx.Done():
				return nil
			}
		}})
	return group.Wait()
}

// libraryLogs sends what Kubernetes' libraries log through klog to ours. Their information is our debugging, and so is all that they
// say once we were told to end: each watch complains that its server is gone.
func libraryLogs(ctx context.Context, log *slog.Logger) {
	klog.SetSlogLogger(slog.New(demoted{log.Handler(), ctx.Done()}))
}

// demoted turns a library's Info into Debug, and everything after the end.
type demoted struct {
	slog.Handler
	ending <-chan struct{}
}

func (d demoted) Enabled(ctx context.Context, l slog.Level) bool {
	select {
	case <-d.ending:
		l = slog.LevelDebug
	default:
	}
	if l == slog.LevelInfo {
		l = slog.LevelDebug
	}
	return d.Handler.Enabled(ctx, l)
}

// Handle asks Enabled, as klog does not for errors. What is said about a connection that this side closed is debugging too: the
// library reads on after the end of each exec.
func (d demoted) Handle(ctx context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok && errors.Is(err, net.ErrClosed) {
			r.Level = slog.LevelDebug
		}
		return true
	})
	if !d.Enabled(ctx, r.Level) {
		return nil
	}
	return d.Handler.Handle(ctx, r)
}

func (d demoted) WithAttrs(a []slog.Attr) slog.Handler {
	return demoted{d.Handler.WithAttrs(a), d.ending}
}
func (d demoted) WithGroup(g string) slog.Handler { return demoted{d.Handler.WithGroup(g), d.ending} }
