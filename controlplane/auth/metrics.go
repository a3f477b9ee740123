package auth

import (
	"sync"
	"time"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

var (
	graphDurations = metrics.NewHistogramVec(&metrics.HistogramOpts{Subsystem: "node_authorizer", Name: "graph_actions_duration_seconds",
		Help: "Histogram of duration of graph actions in node authorizer.", StabilityLevel: metrics.ALPHA,
		Buckets: metrics.ExponentialBuckets(0.0001, 2, 12)}, []string{"operation"})

	legacyTokens      = tokenCounter("legacy_tokens_total", "Cumulative legacy service account tokens used", metrics.BETA)
	staleTokens       = tokenCounter("stale_tokens_total", "Cumulative stale projected service account tokens used", metrics.BETA)
	validTokens       = tokenCounter("valid_tokens_total", "Cumulative valid projected service account tokens used", metrics.BETA)
	manualTokens      = tokenCounter("legacy_manual_token_uses_total", "Cumulative manually created legacy tokens used", metrics.ALPHA)
	autoTokens        = tokenCounter("legacy_auto_token_uses_total", "Cumulative auto-generated legacy tokens used", metrics.ALPHA)
	invalidatedTokens = tokenCounter("invalid_legacy_auto_token_uses_total", "Cumulative invalid auto-generated legacy tokens used", metrics.ALPHA)
)

func tokenCounter(name, help string, level metrics.StabilityLevel) *metrics.Counter {
	return metrics.NewCounter(&metrics.CounterOpts{Subsystem: "serviceaccount", Name: name, Help: help, StabilityLevel: level})
}

// registerMetrics is called before anything counts: what counts earlier counts nowhere.
var registerMetrics = sync.OnceFunc(func() {
	legacyregistry.MustRegister(graphDurations, legacyTokens, staleTokens, validTokens, manualTokens, autoTokens, invalidatedTokens)
})

// graphActions are the observers of a kind's changes in the graph of nodes.
func graphActions(kind string) (adds, removes metrics.ObserverMetric) {
	return graphDurations.WithLabelValues("Add" + kind), graphDurations.WithLabelValues("Delete" + kind)
}

func observe(o metrics.ObserverMetric, since time.Time) {
	if o != nil {
		o.Observe(time.Since(since).Seconds())
	}
}
