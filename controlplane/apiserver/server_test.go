package apiserver

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var serveDir = flag.String("serve", "", "serve from this directory until interrupted (for a look by hand)")

func TestServeByHand(t *testing.T) {
	if *serveDir == "" {
		t.Skip("needs -serve DIR")
	}
	start := time.Now()
	s, err := New(Config{DataDir: *serveDir, BindAddress: netip.MustParseAddr("127.0.0.1"), Port: 16443}, Deps{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WriteAdminKubeconfig(filepath.Join(*serveDir, "kubeconfig")); err != nil {
		t.Fatal(err)
	}
	built := time.Since(start)
	go func() {
		<-s.Ready()
		fmt.Println("built", built, "ready", time.Since(start))
	}()
	if err := s.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
}
