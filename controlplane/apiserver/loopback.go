package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"
)

// loopback carries requests of in-process clients to the handler, without TLS, HTTP framing or a socket.
type loopback struct {
	// handler is nil until the server is built: clients are made before.
	handler atomic.Pointer[http.Handler]
}

type loopbackUser struct{}

// config returns a client configuration under which requests come from u.
func (l *loopback) config(u user.Info) *rest.Config {
	return &rest.Config{
		Host: "http://in-process",
		ContentConfig: rest.ContentConfig{
			AcceptContentTypes: strings.Join([]string{runtime.ContentTypeProtobuf, runtime.ContentTypeJSON}, ","),
			ContentType:        runtime.ContentTypeProtobuf,
		},
		Transport: roundTripper{loopback: l, user: u},
		UserAgent: "keelson/" + u.GetName(),
		QPS:       -1, // flow control at the server is the limit
	}
}

// authenticate accepts requests that came through the loopback as their client's user. The context key is unexported
// and a network request's context never has it.
func (l *loopback) authenticate(req *http.Request) (*authenticator.Response, bool, error) {
	u, ok := req.Context().Value(loopbackUser{}).(user.Info)
	if !ok {
		return nil, false, nil
	}
	auds, _ := authenticator.AudiencesFrom(req.Context())
	return &authenticator.Response{User: u, Audiences: auds}, true, nil
}

// own is the context of an in-process request: it ends with its caller's and has nothing else of it. The caller may be a
// request itself (admission asks for objects), and what belongs to that one (its user, its audit event) is not this one's.
type own struct {
	context.Context
	user user.Info
}

func (c own) Value(key any) any {
	if key == (loopbackUser{}) {
		return c.user
	}
	return nil
}

type roundTripper struct {
	loopback *loopback
	user     user.Info
}

// RoundTrip implements http.RoundTripper.
func (t roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	h := t.loopback.handler.Load()
	if h == nil {
		return nil, errors.New("API server is starting")
	}
	if req.Header.Get("Upgrade") != "" {
		return nil, errors.New("in-process client cannot upgrade a connection")
	}
	in := req.Clone(own{req.Context(), t.user})
	in.RequestURI = req.URL.RequestURI()
	in.RemoteAddr = "127.0.0.1:0"
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/2.0", 2, 0
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close() // a request that streams its answer has no body to read later
	if streams(req.URL) {
		return stream(*h, in, req)
	}
	w := &buffer{header: http.Header{}}
	if err := serve(*h, w, in); err != nil {
		return nil, err
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	return response(req, w.status(), w.header, io.NopCloser(&w.body), int64(w.body.Len())), nil
}

// serve runs a handler that may give a request up by panicking with http.ErrAbortHandler, as the library's filter does
// after it has logged any other panic. On the network that closes the connection.
func serve(h http.Handler, w http.ResponseWriter, req *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s %s was aborted by the server: %v", req.Method, req.URL.Path, p)
		}
	}()
	h.ServeHTTP(w, req)
	return nil
}

// streams tells requests whose answer comes in pieces.
func streams(u *url.URL) bool {
	q := u.Query()
	return truth(q.Get("watch")) && q.Has("watch") || truth(q.Get("follow")) && q.Has("follow") ||
		strings.Contains(u.Path, "/watch/")
}

// stream runs the handler beside the reader of its answer. The handler ends when the request's context does or the
// body is closed; both close the pipe, so that it cannot block on a reader that has gone.
func stream(h http.Handler, in, req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(in.Context())
	pr, pw := io.Pipe()
	w := &piped{header: http.Header{}, pipe: pw, started: make(chan struct{}), gone: make(chan bool)}
	stop := context.AfterFunc(ctx, func() { pr.CloseWithError(context.Cause(ctx)) })
	go func() { // ends with the handler, which ctx ends
		defer cancel()
		defer stop()
		err := serve(h, w, in.WithContext(ctx))
		w.WriteHeader(http.StatusOK)
		pw.CloseWithError(err)
	}()
	select {
	case <-w.started:
	case <-ctx.Done():
		if err := req.Context().Err(); err != nil {
			return nil, err
		}
		<-w.started // the handler ended by itself; it has written its header
	}
	return response(req, w.code, w.sent, body{pr, cancel}, -1), nil
}

func response(req *http.Request, code int, h http.Header, b io.ReadCloser, n int64) *http.Response {
	return &http.Response{
		Status: http.StatusText(code), StatusCode: code, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: h, Body: b, ContentLength: n, Request: req,
	}
}

type body struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (b body) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}

// buffer is a ResponseWriter that keeps a short answer whole.
type buffer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (b *buffer) Header() http.Header         { return b.header }
func (b *buffer) Write(p []byte) (int, error) { return b.body.Write(p) }
func (b *buffer) Flush()                      {}
func (b *buffer) CloseNotify() <-chan bool    { return nil }
func (b *buffer) WriteHeader(code int) {
	if b.code == 0 {
		b.code = code
	}
}

func (b *buffer) status() int {
	if b.code == 0 {
		return http.StatusOK
	}
	return b.code
}

// piped is a ResponseWriter that passes an answer on as it comes.
type piped struct {
	header  http.Header
	pipe    *io.PipeWriter
	once    sync.Once
	started chan struct{} // closed when code and sent are set
	code    int
	sent    http.Header
	gone    chan bool
}

func (p *piped) Header() http.Header      { return p.header }
func (p *piped) Flush()                   { p.WriteHeader(http.StatusOK) }
func (p *piped) CloseNotify() <-chan bool { return p.gone }
func (p *piped) WriteHeader(code int) {
	p.once.Do(func() {
		p.code, p.sent = code, p.header.Clone()
		close(p.started)
	})
}

func (p *piped) Write(b []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	return p.pipe.Write(b)
}
