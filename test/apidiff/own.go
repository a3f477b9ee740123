package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/controlplane/apiserver"
)

// start runs our API server alone, without controllers and nodes, in a folder that goes with it. It returns the kubeconfig.
func start(ctx context.Context) (kubeconfig string, stop func() error, err error) {
	klog.SetLogger(logr.Discard()) // the library's words about what is tried on purpose
	dir, err := os.MkdirTemp("", "apidiff-")
	if err != nil {
		return "", nil, err
	}
	server, err := apiserver.New(apiserver.Config{DataDir: dir, BindAddress: netip.MustParseAddr("127.0.0.1"), Port: -1},
		apiserver.Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	stop = func() error {
		cancel()
		return errors.Join(<-done, os.RemoveAll(dir))
	}
	select {
	case <-server.Ready():
	case err := <-done:
		cancel()
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	kubeconfig = filepath.Join(dir, "kubeconfig")
	if err := server.WriteAdminKubeconfig(kubeconfig); err != nil {
		return "", nil, errors.Join(err, stop())
	}
	return kubeconfig, stop, nil
}
