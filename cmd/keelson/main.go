package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// version is the Kubernetes version that we answer with, and our own build of it (semver build metadata, so that helm's constraints hold).
const version = "v1.37.2+keelson1"

func main() {
	if name := filepath.Base(os.Args[0]); name == "kubectl" || len(os.Args) > 1 && os.Args[1] == "kubectl" {
		os.Exit(kubectl(name == "kubectl"))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	var code exitCode
	switch {
	case errors.As(err, &code):
		os.Exit(int(code))
	case err != nil:
		fmt.Fprintln(os.Stderr, "keelson:", err)
		os.Exit(1)
	}
}

// exitCode ends the process with a code of its own and prints nothing more.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func root() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "keelson", Short: "A whole Kubernetes in one binary", Version: version,
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return o.configure(cmd.Flags(), os.Environ()) },
	}
	o.paths(cmd.PersistentFlags())
	cmd.AddCommand(
		serverCommand(&o), criCommand(&o), upCommand(&o), downCommand(&o),
		installCommand(&o), uninstallCommand(&o), checkCommand(&o),
		imageCommand(&o), psCommand(&o), logsCommand(&o), snapshotCommand(&o), secretsCommand(&o), versionCommand(),
		&cobra.Command{Use: "kubectl", Short: "kubectl " + version + ", with this node's kubeconfig", DisableFlagParsing: true},
	)
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		PersistentPreRun: func(*cobra.Command, []string) {}, // a bad configuration is no reason not to say it
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "keelson", version)
			return err
		}}
}
