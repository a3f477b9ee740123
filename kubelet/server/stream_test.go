package server

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// TestHostile_ST3: a runtime that answers an upgrade with a redirect does not
// send the kubelet anywhere (CVE-2020-8559).
func TestHostile_ST3(t *testing.T) {
	var visited atomic.Bool
	victim := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visited.Store(true) }))
	t.Cleanup(victim.Close)
	runtime := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, victim.URL+"/exec", http.StatusFound)
	}))
	t.Cleanup(runtime.Close)
	s := &Server{cfg: Config{Log: slog.New(slog.DiscardHandler)}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.pass(w, r, runtime.URL+"/exec/token", nil, tunnelled) }))
	t.Cleanup(front.Close)
	for _, protocol := range []string{"SPDY/3.1", "websocket"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", protocol)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusSwitchingProtocols {
			t.Errorf("%s: answered %s", protocol, resp.Status)
		}
	}
	if visited.Load() {
		t.Error("the redirect was followed")
	}
}

// A WebSocket that came straight to the kubelet is translated or taken out of its tunnel: the runtime is asked in SPDY. One of an
// older protocol is the runtime's matter.
func TestWebSocket(t *testing.T) {
	asked := make(chan string, 1)
	runtime := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Upgrade")
		http.Error(w, "enough", http.StatusForbidden)
	}))
	t.Cleanup(runtime.Close)
	s := &Server{cfg: Config{Log: slog.New(slog.DiscardHandler)}}
	for _, c := range []struct {
		protocol, want string
		wrap           wrapping
	}{
		{"v5.channel.k8s.io", "SPDY/3.1", streams{stdout: true}.translated},
		{"v4.channel.k8s.io", "websocket", streams{stdout: true}.translated},
		{"SPDY/3.1+portforward.k8s.io", "SPDY/3.1", tunnelled},
	} {
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.pass(w, r, runtime.URL+"/token", nil, c.wrap) }))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": c.protocol} {
			req.Header.Set(k, v)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := <-asked; got != c.want {
			t.Errorf("%s: the runtime is asked for %q, want %q", c.protocol, got, c.want)
		}
		resp.Body.Close()
		front.Close()
	}
}
