package image_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"keelson.dev/keelson/image"
	"keelson.dev/keelson/image/imagetest"
)

const benchSize = 612 << 20

// benchImages makes the images once, when a benchmark runs.
var benchImages = sync.OnceValue(func() map[imagetest.Compression]v1.Image {
	layers := imagetest.Large(5, benchSize)
	out := map[imagetest.Compression]v1.Image{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, c := range []imagetest.Compression{imagetest.Gzip, imagetest.Zstd, imagetest.None} {
		wg.Go(func() {
			img := imagetest.Must(imagetest.Build(imagetest.Spec{Layers: layers, Compression: c}))
			mu.Lock()
			out[c] = img
			mu.Unlock()
		})
	}
	wg.Wait()
	return out
})

// BenchmarkPull pulls and unpacks 612 MB in five layers from a registry on
// loopback. Besides the time: CPU seconds (the registry's included), and seconds
// until all is on disk, which a pull does not wait for.
func BenchmarkPull(b *testing.B) {
	needRoot(b)
	imgs := benchImages()
	for _, c := range []imagetest.Compression{imagetest.Gzip, imagetest.Zstd, imagetest.None} {
		b.Run(string(c), func(b *testing.B) {
			reg := imagetest.NewRegistry()
			srv := httptest.NewServer(reg)
			defer srv.Close()
			if _, err := reg.Add("large:1", imgs[c]); err != nil {
				b.Fatal(err)
			}
			certs := b.TempDir()
			imagetest.WriteHosts(certs, srv.URL, "docker.io")
			var cpu, synced time.Duration
			for i := range b.N {
				b.StopTimer()
				root := filepath.Join(b.TempDir(), fmt.Sprint(i))
				s, err := image.Open(image.Config{Root: root, CertsDirs: []string{certs}})
				if err != nil {
					b.Fatal(err)
				}
				before, start := cpuTime(), time.Now()
				b.StartTimer()
				if _, err := s.Pull(b.Context(), "large:1", nil); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				cpu += cpuTime() - before
				s.Close()
				synced += time.Since(start)
				os.RemoveAll(root)
			}
			b.SetBytes(benchSize)
			b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/op")
			b.ReportMetric(synced.Seconds()/float64(b.N), "synced-s/op")
		})
	}
}

func cpuTime() time.Duration {
	var ru syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkMount is a container's root filesystem up and down.
func BenchmarkMount(b *testing.B) {
	needRoot(b)
	reg := imagetest.NewRegistry()
	srv := httptest.NewServer(reg)
	defer srv.Close()
	if _, err := reg.Add("bb:1", imagetest.Must(imagetest.Busybox())); err != nil {
		b.Fatal(err)
	}
	certs := b.TempDir()
	imagetest.WriteHosts(certs, srv.URL, "docker.io")
	s, err := image.Open(image.Config{Root: filepath.Join(b.TempDir(), "images"), CertsDirs: []string{certs}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	img, err := s.Pull(b.Context(), "bb:1", nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.MountRootfs(b.Context(), "c", img.ID, image.RootfsOptions{}); err != nil {
			b.Fatal(err)
		}
		if err := s.UnmountRootfs(b.Context(), "c"); err != nil {
			b.Fatal(err)
		}
	}
}
