package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"keelson.dev/keelson/cri/stream"
	"keelson.dev/keelson/network/netns"
	"keelson.dev/keelson/runtime/container"
)

// streamer does what opened streams ask for. The object may have changed since
// the URL was given out, so everything is looked up anew.
type streamer struct{ s *Server }

// Exec implements stream.Runtime.
func (t streamer) Exec(ctx context.Context, id string, cmd []string, ends stream.IO) (int32, error) {
	rec, err := t.s.execTarget(id, cmd)
	if err != nil {
		return 0, err
	}
	cfg := container.ExecConfig{Process: execProcess(rec, cmd, ends.TTY), Stdin: ends.Stdin, TTY: ends.TTY}
	if ends.Stdout != nil {
		cfg.Stdout = ends.Stdout
	}
	if ends.Stderr != nil {
		cfg.Stderr = ends.Stderr
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cfg.Resize = sizes(ctx, ends.Resize)
	return t.s.deps.Containers.Exec(ctx, rec.ID, cfg)
}

// Attach implements stream.Runtime.
func (t streamer) Attach(ctx context.Context, id string, ends stream.IO) error {
	rec, err := t.s.container(id)
	if err != nil {
		return err
	}
	if err := t.s.running(rec.ID); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st := container.Streams{Stdin: ends.Stdin, Resize: sizes(ctx, ends.Resize)}
	if ends.Stdout != nil {
		st.Stdout = ends.Stdout
	}
	if ends.Stderr != nil {
		st.Stderr = ends.Stderr
	}
	return t.s.deps.Containers.Attach(ctx, rec.ID, st)
}

// sizes passes terminal sizes on in the runtime's type until ctx or the source
// ends.
func sizes(ctx context.Context, from <-chan stream.Size) <-chan container.Size {
	if from == nil {
		return nil
	}
	to := make(chan container.Size)
	// Ends with ctx, which the caller cancels.
	go func() {
		defer close(to)
		for {
			select {
			case size, ok := <-from:
				if !ok {
					return
				}
				select {
				case to <- container.Size{Width: size.Width, Height: size.Height}:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return to
}

// PortForward implements stream.Runtime: one connection to a port of the pod's
// loopback, inside the pod's network namespace.
func (t streamer) PortForward(ctx context.Context, sandboxID string, port int32, client io.ReadWriteCloser) error {
	pod, err := t.s.readySandbox(sandboxID)
	if err != nil {
		return err
	}
	conn, err := dial(ctx, pod.NetNSPath, port)
	if err != nil {
		return fmt.Errorf("connect to port %d in sandbox %s: %w", port, pod.ID, err)
	}
	// Both ends close with the stream, which ends the copies.
	stop := context.AfterFunc(ctx, func() {
		_ = conn.Close()
		_ = client.Close()
	})
	defer stop()
	defer conn.Close()
	sent := make(chan struct{})
	// Ends when the client ends its side, or when conn is closed on return and
	// the library closes client.
	go func() {
		defer close(sent)
		_, _ = io.Copy(conn, client)
		_ = conn.CloseWrite() // a half-close is passed on; answers still flow
	}()
	// An error after the connection stood is the pod's or the client's own affair
	// and ends this stream only: kubectl gives up all others when it is told one.
	if _, err := io.Copy(client, conn); err != nil {
		t.s.log.Debug("a forwarded connection broke", "sandbox", pod.ID, "port", port, "err", err)
	}
	return nil
}

// dial connects inside the namespace at path; "" is the node's. A socket belongs
// to the namespace it was made in, so only its making needs the thread there.
func dial(ctx context.Context, path string, port int32) (*net.TCPConn, error) {
	var conn net.Conn
	connect := func() error {
		var d net.Dialer
		var err4, err6 error
		p := strconv.Itoa(int(port))
		if conn, err4 = d.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", p)); err4 == nil {
			return nil
		}
		if conn, err6 = d.DialContext(ctx, "tcp6", net.JoinHostPort("::1", p)); err6 == nil {
			return nil
		}
		return errors.Join(err4, err6)
	}
	var err error
	if path == "" {
		err = connect()
	} else {
		err = netns.Do(path, connect)
	}
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}
