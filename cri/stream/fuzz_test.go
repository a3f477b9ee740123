package stream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// upgrades are requests that turn a connection into one of each protocol.
var upgrades = []string{
	"GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
	"POST %s HTTP/1.1\r\nHost: x\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n",
}

// FuzzUpgraded has a client say anything once its connection is a stream's: the
// server lets it go, and goes on itself.
func FuzzUpgraded(f *testing.F) {
	s, err := New(Config{Creation: 100 * time.Millisecond, Log: slog.New(slog.DiscardHandler)}, echo{
		exec: func(ctx context.Context, s IO) (int32, error) {
			if s.Stdin != nil {
				_, _ = io.Copy(io.Discard, s.Stdin)
			}
			return 0, ctx.Err()
		},
		forward: func(_ context.Context, c io.ReadWriteCloser) error {
			_, err := io.Copy(io.Discard, c)
			return err
		},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	for _, spdy := range []bool{false, true} {
		f.Add(spdy, []byte{0x82, 0x82, 0, 0, 0, 0, 0, 'x'})                       // a frame of WebSocket for stdin
		f.Add(spdy, []byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) // one of endless length
		f.Add(spdy, []byte{0x80, 3, 0, 1, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0})
		f.Add(spdy, []byte{0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff})
		f.Add(spdy, []byte{0, 0, 0, 1, 1, 0xff, 0xff, 0xff})
	}
	f.Fuzz(func(t *testing.T, spdy bool, said []byte) {
		how := upgrades[0]
		if spdy {
			how = upgrades[1]
		}
		text, err := s.URL(&runtimeapi.ExecRequest{ContainerId: "c", Stdin: true, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatalf("the server takes nobody any more: %v", err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprintf(c, how, u.Path)
		answers := bufio.NewReader(c)
		resp, err := http.ReadResponse(answers, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("no upgrade: %v, %v", resp, err)
		}
		_, _ = c.Write(said) // it may have closed already
		_ = c.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, answers); err != nil {
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
				t.Errorf("the connection stays after %q", said)
			}
		}
	})
}
