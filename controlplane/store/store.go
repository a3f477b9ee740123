package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/utils/clock"
)

// keyPrefix is upstream's; tools that read a snapshot look for it.
const keyPrefix = "/registry"

// defaultQuota bounds what the database holds until it is raised (see space); 8 GiB is the largest that etcd recommends.
const defaultQuota = 8 << 30

// Config of a Store.
type Config struct {
	// Dir holds the database, its log, the lock and the Secret key; made (0700) if absent. One process at a time.
	Dir string
	// Name of this member among its peers; unique and lasting. Default "keelson".
	Name string
	// QuotaBytes bounds what is in use in the database file; 0: 8 GiB, and more by itself while the disk has room. Above it only deletions
	// are accepted.
	QuotaBytes int64
	// History is how long what was replaced or deleted can still be read by its revision; at most twice that. 0: 5 minutes.
	History time.Duration
	Log     *slog.Logger
}

// Store is an open database. All methods are safe for concurrent use.
type Store struct {
	log     *slog.Logger
	lock    *os.File
	etcd    *embed.Etcd
	client  *kubernetes.Client
	compact compactor
	secrets *ring
	dir     string
	space   *space
	probing chan struct{} // holds one while Disk's file is synced
	streams atomic.Int64  // of watches; see apart

	campaigned chan struct{} // closed when campaign has ended
	maintained chan struct{} // closed when maintain has ended
	stop       context.CancelFunc
	closeOnce  sync.Once
}

type compactor interface {
	etcd3.Compactor
	Stop()
}

// Open locks the directory and starts the member. It does not wait for a leader: see Ready.
func Open(cfg Config) (*Store, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{log: cfg.Log, lock: lock, dir: dir, probing: make(chan struct{}, 1)}
	if s.secrets, err = openRing(filepath.Join(dir, "secrets.key")); err != nil {
		lock.Close()
		return nil, err
	}
	if s.etcd, err = startMember(cfg, dir); err != nil {
		lock.Close()
		return nil, err
	}
	s.space = &space{dir: dir, fixed: cfg.QuotaBytes != 0, used: s.etcd.Server.Backend().SizeInUse, wake: make(chan struct{}, 1)}
	s.space.quota.Store(cmp.Or(cfg.QuotaBytes, defaultQuota))
	s.campaigned = make(chan struct{})
	go func() { // ends with the election, or with the server
		defer close(s.campaigned)
		campaign(s.etcd.Server)
	}()
	c := v3client.New(s.etcd.Server)
	c.KV = etcd3.NewETCDLatencyTracker(lone{c.KV, s})
	kc := &kubernetes.Client{Client: c}
	kc.Kubernetes = kc
	s.client = kc
	publishMetrics()
	s.publishSize()
	allowProgressRequests(c.Ctx())
	// One compactor for all resources; the library's own bookkeeping of compactors goes by endpoint and there is none.
	s.compact = etcd3.NewCompactor(c, cmp.Or(cfg.History, storagebackend.DefaultCompactInterval), clock.RealClock{}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.maintained = cancel, make(chan struct{})
	go func() { // ends with Close
		defer close(s.maintained)
		s.maintain(ctx)
	}()
	return s, nil
}

// startMember starts etcd. What it cannot open it answers with a panic or the end of the process; both become an error.
func startMember(cfg Config, dir string) (e *embed.Etcd, err error) {
	end := &ending{log: cfg.Log}
	end.opening.Store(true)
	defer end.opening.Store(false)
	// A file shorter than it says is a fault of memory, not an error: it is mapped.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			e, err = nil, opened(dir, p)
		}
	}()
	ec := memberConfig(cfg, dir)
	file := filepath.Join(ec.Dir, "member", "snap", "db")
	if err := complete(file); err != nil {
		return nil, opened(dir, err)
	}
	if st, err := os.Stat(file); err == nil {
		ec.BootstrapDefragThresholdMegabytes = startThreshold(st.Size(), freeBytes(dir), punchable(file))
	}
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(end.logger(cfg.Log.With("part", "etcd")))
	if e, err = embed.StartEtcd(ec); err != nil {
		return nil, startError(dir, err)
	}
	return e, nil
}

// Each segment of the log is reserved on the disk before it is used, the next one too.
func init() { wal.SegmentSizeBytes = 16 << 20 }

// memberConfig describes a member that is alone (see campaign for how it gets to lead at once).
func memberConfig(cfg Config, dir string) *embed.Config {
	ec := embed.NewConfig()
	ec.Name = cfg.Name
	if ec.Name == "" {
		ec.Name = "keelson"
	}
	ec.Dir = filepath.Join(dir, "etcd")
	// Nobody connects: the client is in process and there are no peers. The advertised URL is a placeholder in the
	// member list, replaced when a second member joins.
	ec.ListenPeerUrls, ec.ListenClientUrls, ec.ListenClientHttpUrls = nil, nil, nil
	ec.AdvertiseClientUrls = nil
	ec.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:2380"}}
	ec.InitialCluster = ec.Name + "=http://127.0.0.1:2380"
	// Each tick wakes a processor; these are etcd's own for several members, so that nothing changes when they join.
	ec.TickMs, ec.ElectionMs = 100, 1000
	// etcd's quota goes by the size of the file, which deletions do not shrink, and stays in force until somebody disarms it;
	// ours (see space) goes by what is in use.
	ec.QuotaBackendBytes = -1
	// The lowest free pages are used first, on which trim relies. (It takes a third longer than "map" to commit to a file of 500 MB that is
	// nearly all free, and less memory; with few free pages there is no difference.)
	ec.BackendFreelistType = "array"
	// What is acknowledged is in the log; the backend only spares its replay, so that it need not look ten times a second whether
	// there is something to commit.
	ec.BackendBatchInterval = time.Second
	// What is behind the last snapshot is read again at a start, and its segments of the log stay on the disk. Of what is applied the
	// entries for slow followers stay in memory, with all that was written in them: of etcd's 5,000, hundreds of megabytes after as many
	// large objects. A follower that is further behind gets a snapshot, which of a store of this size is no more.
	ec.SnapshotCount, ec.SnapshotCatchUpEntries = 2_000, 100
	ec.MaxRequestBytes = 3 << 20
	ec.MaxWalFiles = 3
	return ec
}

// Ready is closed when the member has joined and there is a leader.
func (s *Store) Ready() <-chan struct{} { return s.etcd.Server.ReadyNotify() }

// Members of the cluster that are known now, this one included.
func (s *Store) Members() int { return max(1, len(s.etcd.Server.Cluster().Members())) }

// Err yields the error after which the store no longer works; the process must end.
func (s *Store) Err() <-chan error { return s.etcd.Err() }

// Healthy reads one key linearizably: it fails if there is no leader or the disk does not answer before ctx ends.
func (s *Store) Healthy(ctx context.Context) error {
	_, err := s.client.KV.Get(ctx, keyPrefix+"/health", clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("read from store: %w", err)
	}
	return nil
}

// Close stops the member and releases the directory. Storage handed out before fails from then on.
func (s *Store) Close() error {
	var err error
	s.closeOnce.Do(func() {
		s.stop()
		<-s.maintained
		s.probing <- struct{}{} // no other probe begins
		s.compact.Stop()
		err = s.client.Close()
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		s.etcd.Close()
		<-s.campaigned
		err = errors.Join(err, s.lock.Close())
	})
	return err
}
