//go:build profile

package main

import (
	"log/slog"
	"net"
	"net/http"
	_ "net/http/pprof" // the profiles, on the default mux
	"os"
)

// A build with `-tags profile` serves Go's profiles on the unix socket that $KEELSON_PROFILE names. No other build has them.
// It is the daemon's: its children, which inherit the variable, would take the socket from it.
func init() { profiles = serveProfiles }

func serveProfiles() {
	path := os.Getenv("KEELSON_PROFILE")
	if path == "" {
		return
	}
	if c, err := net.Dial("unix", path); err == nil { // the server's own: this is a program that it runs
		_ = c.Close()
		return
	}
	_ = os.Remove(path) // of an earlier process
	l, err := net.Listen("unix", path)
	if err != nil {
		slog.Error("no profiles", "err", err)
		return
	}
	go func() { // ends with the process
		slog.Error("no profiles", "err", http.Serve(l, nil))
	}()
}
