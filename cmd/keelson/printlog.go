package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"keelson.dev/keelson/kubelet/podlog"
)

// printLog writes a container's log: both streams, as `kubectl logs` does.
func printLog(ctx context.Context, p places, path string, follow bool, out io.Writer) error {
	rel, err := filepath.Rel(p.PodLogs, path)
	if err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("the log %s is not below --pod-logs-dir %s", path, p.PodLogs)
	}
	return podlog.Copy(ctx, out, nil, p.PodLogs, filepath.Dir(rel), filepath.Base(rel), podlog.Options{Tail: -1, Limit: -1, Follow: follow})
}
