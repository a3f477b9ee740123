package core

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"

	"keelson.dev/keelson/controlplane/resource/core/address"
	"keelson.dev/keelson/controlplane/resource/core/nodeport"
)

// scrapeTimeout bounds what a scrape reads from the store.
const scrapeTimeout = 5 * time.Second

// scraped is the allocator that a scrape reads: the last one made, as the registry of metrics is the process's.
var scraped atomic.Pointer[allocator]

var registerMetrics = sync.OnceFunc(func() {
	address.RegisterMetrics()
	nodeport.RegisterMetrics()
	legacyregistry.CustomMustRegister(&allocated{})
})

// allocated tells how much is given out. It is read from the records when somebody asks, so that it is right from the start, and
// counts what other servers have given out.
type allocated struct{ metrics.BaseStableCollector }

// DescribeWithStability implements metrics.StableCollector.
func (*allocated) DescribeWithStability(ch chan<- *metrics.Desc) {
	address.Pool{}.Describe(ch)
	nodeport.Ledger{}.Describe(ch)
}

// CollectWithStability implements metrics.StableCollector.
func (*allocated) CollectWithStability(ch chan<- metrics.Metric) {
	a := scraped.Load()
	if a == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	a.ips.Collect(ctx, ch)
	a.ports.Collect(ctx, ch)
}
