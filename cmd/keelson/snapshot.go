package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"

	"keelson.dev/keelson/controlplane/store"
	"keelson.dev/keelson/controlplane/store/snapshot"
)

// firstSnapshot is how long after its start a server without a snapshot takes one.
const firstSnapshot = 10 * time.Minute

// snapshotRetry is how long after a failed scheduled save the next is tried.
const snapshotRetry = 10 * time.Minute

func (p places) snapshots() string { return filepath.Join(p.Data, "snapshots") }

func snapshotCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "snapshot", Short: "Save the cluster to a file, and bring it back"}
	dir := cmd.PersistentFlags().String("snapshot-dir", "", "the snapshots' folder (default <data-dir>/snapshots)")
	folder := func() (string, error) {
		if *dir == "" {
			return o.place.snapshots(), nil
		}
		return filepath.Abs(*dir) // the server has another working directory
	}
	cmd.AddCommand(snapshotSave(o, folder), snapshotList(folder), snapshotRestore(o))
	return cmd
}

func snapshotSave(o *options, folder func() (string, error)) *cobra.Command {
	return &cobra.Command{Use: "save", Short: "Save the cluster now, running or not", Args: cobra.NoArgs,
		Long: "Save the cluster now, running or not. The file holds the database, the certificate authorities and the keys of Secrets:\nwho has it has the cluster.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := folder()
			if err != nil {
				return err
			}
			if runningPid(o.place) != 0 {
				return adminCall(cmd.Context(), o.place, http.MethodPost, "/snapshots?dir="+url.QueryEscape(dir), nil, cmd.OutOrStdout())
			}
			file, m, err := saveStopped(cmd.Context(), o.place, dir)
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), saved(file, m))
			}
			return err
		}}
}

func saved(file string, m snapshot.Manifest) string {
	return fmt.Sprintf("%s revision %d, %d keys", file, m.Revision, m.Keys)
}

// saveStopped opens the database of a server that does not run.
func saveStopped(ctx context.Context, p places, dir string) (string, snapshot.Manifest, error) {
	db := filepath.Join(p.server(), "db")
	if _, err := os.Stat(db); err != nil {
		return "", snapshot.Manifest{}, fmt.Errorf("no cluster in %s: %w", p.Data, err)
	}
	s, err := store.Open(store.Config{Dir: db, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", snapshot.Manifest{}, err
	}
	defer s.Close()
	select {
	case <-s.Ready():
	case <-ctx.Done():
		return "", snapshot.Manifest{}, ctx.Err()
	}
	return snapshot.Save(ctx, snapshot.Source{Dir: p.server(), Backup: s.Backup, Version: version, Now: time.Now}, dir)
}

func snapshotList(folder func() (string, error)) *cobra.Command {
	return &cobra.Command{Use: "ls", Short: "List the snapshots, verified", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := folder()
			if err != nil {
				return err
			}
			files, err := snapshot.List(dir)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 3, ' ', 0)
			fmt.Fprintln(w, "SNAPSHOT\tTAKEN\tREVISION\tKEYS\tSIZE\tSTATE")
			var bad error
			for _, f := range files {
				m, err := snapshot.Verify(f)
				state := "ok"
				if err != nil {
					state, bad = "damaged", errors.Join(bad, err)
				}
				var size int64
				if st, err := os.Stat(f); err == nil {
					size = st.Size()
				}
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\n", f, m.Taken.Format(time.RFC3339), m.Revision, m.Keys, resource.NewQuantity(size, resource.BinarySI), state)
			}
			return errors.Join(w.Flush(), bad)
		}}
}

func snapshotRestore(o *options) *cobra.Command {
	var force bool
	cmd := &cobra.Command{Use: "restore file", Short: "Bring a cluster back from a snapshot (the server must be stopped)", Args: cobra.ExactArgs(1),
		Long: "Bring a cluster back from a snapshot, also on a machine without one. The server must be stopped. The data that is there is kept beside.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if pid := runningPid(o.place); pid != 0 {
				return fmt.Errorf("a server runs on %s (pid %d): stop it first", o.place.Data, pid)
			}
			if err := os.MkdirAll(o.place.Data, 0o711); err != nil {
				return err
			}
			old, m, err := snapshot.Restore(args[0], snapshot.Options{Dir: o.place.server(), Version: version, Force: force, Now: time.Now()})
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "restored: the cluster as of %s, revision %d, %d keys\n", m.Taken.Format(time.RFC3339), m.Revision, m.Keys)
			if old != "" {
				fmt.Fprintln(out, "what was there is in", old)
			}
			_, err = fmt.Fprintln(out, "start the server: clients and nodes go on with the certificates that they have")
			return err
		}}
	cmd.Flags().BoolVar(&force, "force", false, "replace another cluster's data, or take a snapshot of a newer version")
	return cmd
}

// snapshotRoutes serve snapshots of the running server on the admin socket.
func (p *plane) snapshotRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /snapshots", func(w http.ResponseWriter, r *http.Request) {
		file, m, err := p.server.Snapshot(r.Context(), r.URL.Query().Get("dir"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, saved(file, m))
	})
}

// schedule is when the cluster is saved by itself, and where to.
type schedule struct {
	dir   string
	every time.Duration // 0: never
	keep  int
	save  func(ctx context.Context, dir string) (string, snapshot.Manifest, error)
	log   *slog.Logger
}

// run saves the cluster on the schedule and keeps the newest few until ctx ends. A restart does not move the schedule. A save that fails
// removes nothing and is tried again.
func (s schedule) run(ctx context.Context) error {
	if s.every <= 0 {
		return nil
	}
	first := min(firstSnapshot, s.every)
	failed := false
	for {
		wait := first
		files, err := snapshot.List(s.dir)
		if failed {
			wait = snapshotRetry
		} else if err == nil && len(files) > 0 {
			wait = snapshot.Due(files[0], time.Now(), s.every, first)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		file, m, err := s.save(ctx, s.dir)
		if err == nil {
			s.log.Info("snapshot saved", "file", file, "revision", m.Revision, "keys", m.Keys)
			err = snapshot.Prune(s.dir, s.keep)
		}
		if failed = err != nil; failed && ctx.Err() == nil {
			s.log.Error("scheduled snapshot failed; the old ones are kept", "dir", s.dir, "err", err)
		}
	}
}
