package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"

	"k8s.io/klog/v2"
)

func TestLibraryLogs(t *testing.T) {
	closed := &net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed}
	for _, c := range []struct {
		name  string
		say   func()
		level slog.Level
		want  bool
	}{
		{"an error", func() { klog.Background().Error(errors.New("x"), "said") }, slog.LevelInfo, true},
		{"an error without a cause", func() { klog.Background().Error(nil, "said") }, slog.LevelInfo, true},
		{"information", func() { klog.Background().Info("said") }, slog.LevelInfo, false},
		{"a connection that this side closed", func() { klog.Background().Error(closed, "said") }, slog.LevelInfo, false},
		{"the same, asked for", func() { klog.Background().Error(closed, "said") }, slog.LevelDebug, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			libraryLogs(ctx, slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: c.level})))
			t.Cleanup(klog.ClearLogger)
			c.say()
			if got := strings.Contains(out.String(), "said"); got != c.want {
				t.Errorf("logged is %v, want %v: %q", got, c.want, out.String())
			}
			out.Reset()
			cancel()
			c.say()
			if got, want := strings.Contains(out.String(), "said"), c.level == slog.LevelDebug; got != want {
				t.Errorf("after the end, logged is %v, want %v: %q", got, want, out.String())
			}
		})
	}
}
