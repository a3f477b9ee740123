package cri

import (
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/runtime/container"
)

// pages takes what a streamed list sends.
type pages struct {
	grpc.ServerStream
	ids     map[string]bool
	largest int // bytes of a message
}

// Send implements grpc.ServerStreamingServer.
func (p *pages) Send(r *runtimeapi.StreamContainersResponse) error {
	for _, c := range r.GetContainers() {
		p.ids[c.GetId()] = true
	}
	p.largest = max(p.largest, proto.Size(r))
	return nil
}

// TestHostile_CR6: thousands of dead containers are listed whole, in pages that
// fit any client's limit, and the statistics are of none of them.
func TestHostile_CR6(t *testing.T) {
	w := newWorld()
	s := start(t, w, t.TempDir())
	pod := runPod(t, s, podConfig("full"))
	const many = 3000
	for i := range many {
		createCtr(t, s, pod, ctrConfig(fmt.Sprint("c", i)))
	}
	w.mu.Lock()
	for _, st := range w.states {
		st.Status = container.Exited
	}
	w.mu.Unlock()
	list, err := s.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil || len(list.GetContainers()) != many {
		t.Errorf("%d containers listed, want %d; %v", len(list.GetContainers()), many, err)
	}
	p := &pages{ids: map[string]bool{}}
	if err := s.StreamContainers(&runtimeapi.StreamContainersRequest{}, p); err != nil || len(p.ids) != many {
		t.Errorf("%d containers streamed, want %d; %v", len(p.ids), many, err)
	}
	const smallest = 4 << 20 // what gRPC takes if nobody says otherwise
	if p.largest == 0 || p.largest > smallest/4 {
		t.Errorf("a page has %d bytes", p.largest)
	}
	stats, err := s.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{})
	if err != nil || len(stats.GetStats()) != 0 {
		t.Errorf("statistics of %d dead containers, %v", len(stats.GetStats()), err)
	}
	removePod(t, s, pod)
	nothingLeft(t, s, w)
}
