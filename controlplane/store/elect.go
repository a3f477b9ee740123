package store

import (
	"context"
	"expvar"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// campaignEvery is how often a lone member asks for its election until the log it replays lets it have one.
const campaignEvery = 2 * time.Millisecond

// replayed tells whether Raft knows everything committed to be applied. Before, an election makes it read its log, of which the
// server may just have dropped what is applied already: then the library panics. The status that etcd publishes is the only way
// to ask Raft itself; it is that of the process's newest server.
func replayed(id uint64) bool {
	published, ok := expvar.Get("raft.status").(expvar.Func)
	if !ok {
		return false
	}
	st, ok := published().(raft.Status)
	return ok && st.ID == id && st.HardState != nil && st.Applied >= st.GetCommit()
}

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
		if members == 1 && replayed(id) {
			_ = srv.Process(ctx, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), From: &id, To: &id})
		}
	}
}
