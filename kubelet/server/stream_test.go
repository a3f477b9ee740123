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
