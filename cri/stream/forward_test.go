package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestHostile_CR15_RefusedAtOnce: a connection that fails before the client
// knows of its stream is told as an error, not as a stream that was reset.
func TestHostile_CR15_RefusedAtOnce(t *testing.T) {
	s := serve(t, echo{forward: func(context.Context, io.ReadWriteCloser) error { return errors.New("connection refused") }})
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	u := execURL(t, s, &runtimeapi.PortForwardRequest{PodSandboxId: "p", Port: []int32{1}})
	conn, _, err := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u).Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var wg sync.WaitGroup
	for n := range 300 {
		wg.Go(func() {
			header := http.Header{"Streamtype": {"error"}, "Port": {"1"}, "Requestid": {fmt.Sprint(n)}}
			told, err := conn.CreateStream(header)
			if err != nil {
				t.Errorf("connection %d: error stream: %v", n, err)
				return
			}
			_ = told.Close() // we write nothing to it
			header = header.Clone()
			header.Set("streamType", "data")
			if _, err := conn.CreateStream(header); err != nil {
				t.Errorf("connection %d: data stream: %v", n, err)
				return
			}
			if text, err := io.ReadAll(told); err != nil || !strings.Contains(string(text), "connection refused") {
				t.Errorf("connection %d: told %q, %v", n, text, err)
			}
		})
	}
	wg.Wait()
}
