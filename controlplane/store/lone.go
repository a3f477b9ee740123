package store

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// lone reads without asking Raft while this member is alone. Raft confirms a read in the loop that also syncs the log, so that a disk
// that takes five seconds for a sync would hold up every read for as long. Of a cluster of one the state that has been applied is the
// newest that anybody was told of: a write is acknowledged when it is applied, and applied when it is on disk. Until the log has been
// replayed (Ready) that is not so, nor when there are others.
type lone struct {
	clientv3.KV
	store *Store
}

func (l lone) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	select {
	case <-l.store.Ready():
		if l.store.Members() == 1 {
			opts = append(opts[:len(opts):len(opts)], clientv3.WithSerializable())
		}
	default:
	}
	return l.KV.Get(ctx, key, opts...)
}
