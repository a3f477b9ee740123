package stream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
)

// watchedWriter gives out, on Hijack, a connection that tells when the client is
// gone. net/http stops watching a connection once it is hijacked, and the
// streaming libraries tell nobody, so an exec without stdin would outlive its
// client for hours.
type watchedWriter struct {
	http.ResponseWriter
	ctx  context.Context // the stream's; its end closes the connection
	gone func()          // ends ctx
}

// WriteHeader marks the connection of a failed upgrade as one to close: nobody
// may go on using it as an HTTP connection (CVE-2018-1002105).
func (w *watchedWriter) WriteHeader(code int) {
	if code != http.StatusSwitchingProtocols {
		w.Header().Set("Connection", "close")
	}
	w.ResponseWriter.WriteHeader(code)
}

// Hijack implements http.Hijacker.
func (w *watchedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	// What net/http has read ahead must come first, through the same watch.
	ahead, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	wc := &watchedConn{Conn: conn, in: io.MultiReader(bytes.NewReader(bytes.Clone(ahead)), conn), gone: w.gone}
	// A port-forward over SPDY ends with its connection only.
	context.AfterFunc(w.ctx, func() { _ = conn.Close() })
	return wc, bufio.NewReadWriter(bufio.NewReader(wc), bufio.NewWriter(wc)), nil
}

type watchedConn struct {
	net.Conn
	in   io.Reader
	gone func()
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.gone()
	}
	return n, err
}

func (c *watchedConn) Close() error {
	c.gone()
	return c.Conn.Close()
}
