package stream

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestTLS: with a certificate the server speaks HTTPS only, to clients that
// believe in it.
func TestTLS(t *testing.T) {
	lender := httptest.NewTLSServer(http.NotFoundHandler()) // of a certificate for 127.0.0.1
	defer lender.Close()
	s, err := New(Config{Log: slog.New(slog.DiscardHandler), TLS: &tls.Config{Certificates: lender.TLS.Certificates, MinVersion: tls.VersionTLS12}},
		echo{exec: func(_ context.Context, s IO) (int32, error) {
			_, err := fmt.Fprint(s.Stdout, "over TLS")
			return 0, err
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: lender.Certificate().Raw})
	request := &runtimeapi.ExecRequest{ContainerId: "c", Cmd: []string{"x"}, Stdout: true}
	for name, dial := range map[string]func(*rest.Config, string) (remotecommand.Executor, error){
		"websocket": func(c *rest.Config, u string) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(c, "GET", u)
		},
		"spdy": func(c *rest.Config, _ string) (remotecommand.Executor, error) {
			at := execURL(t, s, request)
			return remotecommand.NewSPDYExecutor(c, "POST", at)
		},
	} {
		for trusted, c := range map[bool]*rest.Config{true: {TLSClientConfig: rest.TLSClientConfig{CAData: ca}}, false: {}} {
			u := execURL(t, s, request)
			if u.Scheme != "https" {
				t.Fatalf("the address is %s, want https", u)
			}
			ex, err := dial(c, u.String())
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			err = ex.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &out})
			if trusted && (err != nil || out.String() != "over TLS") {
				t.Errorf("%s: %q, %v", name, out.String(), err)
			}
			if !trusted && err == nil {
				t.Errorf("%s: a client that does not know the certificate was served", name)
			}
		}
	}
	plain := strings.Replace(execURL(t, s, request).String(), "https:", "http:", 1)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, plain, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP gets status %s", resp.Status)
	}
}
