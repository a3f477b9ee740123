package runtimetest

import (
	"bytes"
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"keelson.dev/keelson/runtime/container"
	"keelson.dev/keelson/runtime/logfile"
)

// Run creates and starts a container.
func (n *Node) Run(cfg container.Config) container.State {
	n.T.Helper()
	ctx := n.T.Context()
	if err := n.Create(ctx, cfg); err != nil {
		n.T.Fatal(err)
	}
	s, err := n.Start(ctx, cfg.ID)
	if err != nil {
		n.T.Fatal(err)
	}
	return s
}

// Await waits for a container to end and says how.
func (n *Node) Await(id string) container.State {
	n.T.Helper()
	ctx := n.T.Context()
	events := n.Events(ctx)
	deadline := time.After(30 * time.Second)
	for {
		s, err := n.State(id)
		if err != nil {
			n.T.Fatal(err)
		}
		if s.Status == container.Exited {
			return s
		}
		select {
		case <-events:
		case <-deadline:
			n.T.Fatalf("container %s does not end: %+v", id, s)
		}
	}
}

// Records are the records of a container's log.
func (n *Node) Records(id string) []logfile.Record {
	n.T.Helper()
	return n.RecordsIn(n.Log(id))
}

// RecordsIn are the records of a log file.
func (n *Node) RecordsIn(path string) []logfile.Record {
	n.T.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		n.T.Fatal(err)
	}
	var out []logfile.Record
	for line := range bytes.Lines(text) {
		r, err := logfile.Parse(line)
		if err != nil {
			n.T.Fatalf("log of %s: %v", path, err)
		}
		out = append(out, r)
	}
	return out
}

// Output is what a container wrote to one stream, by its log.
func (n *Node) Output(id string, stream logfile.Stream) string {
	n.T.Helper()
	var out []byte
	for _, r := range n.Records(id) {
		if r.Stream == stream {
			out = r.Append(out)
		}
	}
	return string(out)
}

// Process is a command to exec.
func Process(args ...string) *specs.Process {
	return &specs.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/"}
}
