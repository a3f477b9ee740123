package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrGone says that the connection to the keeper is lost. What was asked may
// or may not have happened.
var ErrGone = errors.New("keeper is gone")

// ErrNotSent goes with an ErrGone if what was asked has not happened.
var ErrNotSent = errors.New("nothing was asked")

// Client is the daemon's end of a connection to the keeper.
type Client struct {
	conn    *Conn
	onEvent OnEvent
	peer    Hello
	done    chan struct{}

	mu      sync.Mutex
	seq     uint32
	waiting map[uint32]chan answer
	lost    bool
}

// OnEvent takes an event; files are its own.
type OnEvent func(op Op, body json.RawMessage, files []*os.File)

type answer struct {
	header Header
	body   json.RawMessage
	files  []*os.File
}

// Dial connects to the keeper whose socket is in dir and says hello. onEvent
// is called for each event, in order, from the reading goroutine: it must be
// quick and must not call the client. ErrGone says that nobody listens.
func Dial(ctx context.Context, dir string, onEvent OnEvent) (*Client, error) {
	sock, err := dialSocket(dir)
	if err != nil {
		return nil, fmt.Errorf("connect to keeper in %s: %w: %v", dir, ErrGone, err)
	}
	conn, err := NewConn(sock)
	if err != nil {
		sock.Close()
		return nil, err
	}
	c := &Client{conn: conn, onEvent: onEvent, done: make(chan struct{}), waiting: map[uint32]chan answer{}}
	go c.read() // ends when the connection does: Close, or the keeper's death
	files, err := c.Call(ctx, OpHello, Hello{Version: Version, Pid: os.Getpid()}, &c.peer)
	closeAll(files)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("greet keeper in %s: %w", dir, err)
	}
	return c, nil
}

// dialSocket reaches the socket through its directory's descriptor, since a
// socket address holds 107 bytes and paths may be longer.
func dialSocket(dir string) (*net.UnixConn, error) {
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(d)
	addr := &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", d, SocketName), Net: "unixpacket"}
	return net.DialUnix("unixpacket", nil, addr)
}

// Peer is what the keeper said of itself.
func (c *Client) Peer() Hello { return c.peer }

// Done is closed when the connection is lost.
func (c *Client) Done() <-chan struct{} { return c.done }

// Lost says that the connection is.
func (c *Client) Lost() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Close ends the connection and waits for the reader. The keeper goes on.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Call sends a request and waits for its reply, which is decoded into out (if
// not nil). The returned files are the caller's. A cancelled ctx ends the
// waiting, not the work: its reply is dropped and its files closed.
func (c *Client) Call(ctx context.Context, op Op, in, out any, files ...*os.File) ([]*os.File, error) {
	wait := make(chan answer, 1)
	c.mu.Lock()
	if c.lost {
		c.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", ErrGone, ErrNotSent)
	}
	c.seq++
	seq := c.seq
	c.waiting[seq] = wait
	c.mu.Unlock()
	if err := c.conn.Send(Header{Op: op, Seq: seq}, in, files...); err != nil {
		c.forget(seq, wait)
		return nil, fmt.Errorf("%w: %w: %v", ErrGone, ErrNotSent, err)
	}
	select {
	case a, ok := <-wait:
		if !ok {
			return nil, ErrGone
		}
		return decodeAnswer(a, out)
	case <-ctx.Done():
		c.forget(seq, wait)
		return nil, context.Cause(ctx)
	}
}

func decodeAnswer(a answer, out any) ([]*os.File, error) {
	if a.header.Failed {
		closeAll(a.files)
		f := &Failure{Kind: KindInternal}
		if err := json.Unmarshal(a.body, f); err != nil {
			return nil, fmt.Errorf("keeper failed without a reason: %w", err)
		}
		return nil, f
	}
	if out == nil || len(a.body) == 0 {
		return a.files, nil
	}
	if err := json.Unmarshal(a.body, out); err != nil {
		closeAll(a.files)
		return nil, fmt.Errorf("decode keeper reply to op %d: %w", a.header.Op, err)
	}
	return a.files, nil
}

// forget drops a waiter; a reply that came meanwhile is closed.
func (c *Client) forget(seq uint32, wait chan answer) {
	c.mu.Lock()
	delete(c.waiting, seq)
	c.mu.Unlock()
	select {
	case a := <-wait:
		closeAll(a.files)
	default:
	}
}

func (c *Client) read() {
	defer c.lose()
	for {
		h, body, files, err := c.conn.Receive()
		if err != nil {
			return
		}
		kept := append(json.RawMessage(nil), body...)
		if !h.Reply {
			c.onEvent(h.Op, kept, files)
			continue
		}
		c.mu.Lock()
		wait, ok := c.waiting[h.Seq]
		delete(c.waiting, h.Seq)
		if ok {
			wait <- answer{header: h, body: kept, files: files} // buffered: never blocks
		}
		c.mu.Unlock()
		if !ok {
			closeAll(files)
		}
	}
}

// lose fails everybody who waits.
func (c *Client) lose() {
	c.conn.Close()
	c.mu.Lock()
	c.lost = true
	for seq, wait := range c.waiting {
		delete(c.waiting, seq)
		close(wait)
	}
	c.mu.Unlock()
	close(c.done)
}
