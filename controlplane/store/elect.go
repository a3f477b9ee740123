package store

import (
	"context"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/raft/v3/raftpb"
)

// campaignEvery is how often a lone member asks for its election until the log it replays lets it have one.
const campaignEvery = 2 * time.Millisecond

// campaign makes a member that is alone leader at once. Raft would wait out an election timeout first, in case another
// leader is about; a cluster of one has none, and a timeout short enough for a fast start would tick, and cost, for ever.
// The message is the one a leader sends to whom it hands over. It ends when there is a leader or the server stops.
func campaign(srv *etcdserver.EtcdServer) {
	tick := time.NewTicker(campaignEvery)
	defer tick.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	id := uint64(srv.MemberID())
	for {
		select {
		case <-srv.StopNotify():
			return
		case <-srv.ReadyNotify():
			return
		case <-tick.C:
		}
		members := len(srv.Cluster().Members())
		if members > 1 || srv.Leader() != 0 {
			return
		}
		if members == 1 {
			_ = srv.Process(ctx, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), From: &id, To: &id})
		}
	}
}
