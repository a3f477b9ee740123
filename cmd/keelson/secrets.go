package main

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

func secretsCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "secrets", Short: "The encryption of Secrets at rest"}
	cmd.AddCommand(&cobra.Command{Use: "rotate", Short: "Encrypt every Secret with a new key and forget the old", Args: cobra.NoArgs,
		Long: "Encrypt every Secret with a new key and forget the old, in the running server. Interrupted, it goes on when it is run again.\nOlder snapshots bring their own keys along.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return adminCall(cmd.Context(), o.place, http.MethodPost, "/secrets/rotate", nil, cmd.OutOrStdout())
		}})
	return cmd
}

// adminRoutes serve what the running control plane does on request, on the admin socket.
func (p *plane) adminRoutes(mux *http.ServeMux) {
	p.snapshotRoutes(mux)
	mux.HandleFunc("POST /secrets/rotate", func(w http.ResponseWriter, r *http.Request) {
		done, err := p.server.RotateSecretKey(r.Context())
		if err == nil && len(done.Lost) > 0 {
			err = fmt.Errorf("%d Secrets are encrypted with %s now; the older keys are kept, because these cannot be read with any: %s",
				done.Rewritten, done.Key, strings.Join(done.Lost, " "))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "%d Secrets are encrypted with %s now\n", done.Rewritten, done.Key)
	})
}
