package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/image/content"
	"keelson.dev/keelson/image/ledger"
	"keelson.dev/keelson/image/registry"
	"keelson.dev/keelson/image/snapshot"
	"keelson.dev/keelson/image/unpack"
)

// Config of a Store. Fields without "required" have a default when zero.
type Config struct {
	Root      string       // required: the store's directory; one process at a time
	CertsDirs []string     // folders of <registry host>/hosts.toml
	Log       *slog.Logger // default discards

	Policy        string                                // a policy.json: which images may be pulled (image/policy); default all
	DockerConfigs []string                              // config.json files: credentials for pulls that bring none
	Proxy         func(*http.Request) (*url.URL, error) // e.g. http.ProxyFromEnvironment; default none
	Platform      v1.Platform                           // what to choose from an index; default this machine
	Parallel      int                                   // layers downloaded and unpacked at the same time, over all pulls; default 4
	Limits        unpack.Limits                         // of one image
	Registry      registry.Config                       // timeouts and retries; its CertsDirs, DockerConfigs, Proxy and Log are set from above
}

func (c Config) withDefaults() (Config, error) {
	if !filepath.IsAbs(c.Root) {
		return c, fmt.Errorf("open image store: Root %q is not an absolute path", c.Root)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Platform.OS == "" {
		c.Platform = hostPlatform()
	}
	if c.Parallel <= 0 {
		c.Parallel = 4
	}
	c.Registry.CertsDirs, c.Registry.DockerConfigs = c.CertsDirs, c.DockerConfigs
	c.Registry.Proxy, c.Registry.Log = c.Proxy, c.Log
	return c, nil
}

// hostPlatform is what this machine runs, with amd64's microarchitecture level.
func hostPlatform() v1.Platform {
	p := v1.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	switch x := cpu.X86; {
	case p.Architecture == "arm64":
		p.Variant = "v8"
	case p.Architecture != "amd64":
	case x.HasAVX512F && x.HasAVX512BW && x.HasAVX512CD && x.HasAVX512DQ && x.HasAVX512VL:
		p.Variant = "v4"
	case x.HasAVX2 && x.HasBMI1 && x.HasBMI2 && x.HasFMA:
		p.Variant = "v3"
	case x.HasSSE42 && x.HasPOPCNT:
		p.Variant = "v2"
	}
	return p
}

// Store keeps images and mounts their root filesystems. Safe for concurrent use.
type Store struct {
	cfg   Config
	lock  *os.File // holds the flock
	blobs *content.Store
	snaps *snapshot.Store
	file  *ledger.File

	work   work
	syncer *syncer

	mu      sync.Mutex
	state   *ledger.State
	durable *ledger.State               // what images.json says; a subset of what is on disk
	configs map[digest.Digest]*v1.Image // of state's images
	mounted map[string]snapshot.Record  // containers and, with viewPrefix, views
	leases  map[digest.Digest]int       // layers and blobs that running operations need
	putOff  map[digest.Digest]bool      // blobs to collect when their leases end
	closed  bool
	running sync.WaitGroup // public operations, for Close
}

// work is what runs at the moment, by key; each has a lock of its own.
type work struct {
	pulls  flights[digest.Digest] // by reference and credentials
	layers flights[struct{}]      // by chain ID
	fetch  keyed                  // by blob digest: who downloads
	drops  keyed                  // by blob digest: who removes
	mounts keyed                  // by container or view id
	ledger keyed                  // by file: whose turn it is to write
	slots  chan struct{}          // Parallel
}

// Open takes the store's directory, recovers from whatever happened before, and
// keeps what running containers have mounted. An error wraps ErrLocked, with the
// pid, when another process has it.
func Open(cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Root, 0o711); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	lock, err := lockDir(cfg.Root)
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, lock: lock, work: work{slots: make(chan struct{}, cfg.Parallel)},
		configs: map[digest.Digest]*v1.Image{}, mounted: map[string]snapshot.Record{}, leases: map[digest.Digest]int{}, putOff: map[digest.Digest]bool{}}
	if err := s.open(); err != nil {
		if s.snaps != nil {
			s.snaps.Close()
		}
		return nil, errors.Join(fmt.Errorf("open image store %s: %w", cfg.Root, err), lock.Close())
	}
	s.syncer = newSyncer(s.syncOnce, cfg.Log)
	s.syncer.want()
	return s, nil
}

func (s *Store) open() (err error) {
	if s.blobs, err = content.Open(s.cfg.Root); err != nil {
		return err
	}
	if s.snaps, err = snapshot.Open(s.cfg.Root, s.cfg.Log); err != nil {
		return err
	}
	if s.file, err = ledger.NewFile(s.cfg.Root); err != nil {
		return err
	}
	state, synced, err := s.file.Load()
	if state == nil {
		return err
	}
	if err != nil {
		// A node must start: images are pulled again, pods go on with what they have mounted.
		s.cfg.Log.Error("the record of images is spoilt; images that it alone knew are forgotten", "err", err)
	}
	s.state = state
	s.durable = ledger.New()
	if synced {
		s.durable = state.Clone()
	}
	return s.recover()
}

// Close waits for running operations and for the last sync. Mounts stay.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
	s.work.pulls.wg.Wait()
	s.work.layers.wg.Wait()
	err := s.syncer.close()
	s.snaps.Close()
	return errors.Join(err, s.lock.Close())
}

// begin registers a public operation; end must be called.
func (s *Store) begin() (end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	s.running.Add(1)
	return s.running.Done, nil
}

// lockDir takes the directory for this process; the lock goes with the process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid, _ := io.ReadAll(io.LimitReader(f, 20))
		f.Close()
		return nil, fmt.Errorf("%w: %s, pid %s", ErrLocked, dir, strings.TrimSpace(string(pid)))
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open image store: %w", err), f.Close())
	}
	return f, nil
}

// Usage of the image store.
type Usage struct {
	Path   string // directory
	Bytes  uint64 // disk space
	Inodes uint64
}

// Usage counts what images take: layers, blobs and what is arriving; not the
// writable layers of containers, see RootfsUsage.
func (s *Store) Usage() (Usage, error) {
	u := Usage{Path: s.cfg.Root}
	err := s.blobs.Each(func(_ digest.Digest, size int64, _ bool) {
		u.Bytes += uint64(size)
		u.Inodes++
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.state.Layers {
		u.Bytes += l.Bytes
		u.Inodes += l.Inodes
	}
	return u, err
}

// RootfsUsage counts a container's writable layer.
func (s *Store) RootfsUsage(containerID string) (Usage, error) {
	b, n, err := s.snaps.Usage(context.Background(), containerID)
	return Usage{Path: filepath.Join(s.cfg.Root, "containers", containerID, "upper"), Bytes: b, Inodes: n}, err
}
