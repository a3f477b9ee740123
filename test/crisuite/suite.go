package crisuite

import (
	"slices"
	"testing"
)

// Spec is one behaviour.
type Spec struct {
	Name string
	// Processes says that it needs containers that run: only the real server has
	// them. All others hold of a model without processes too, so that the kubelet's
	// tests may count on them.
	Processes bool
	Run       func(*Bench)
}

// Suite is every behaviour of this package.
func Suite() []Spec {
	return slices.Concat(lifecycleSpecs, identitySpecs, usernsSpecs, execSpecs, logSpecs, networkSpecs, statsSpecs, eventSpecs, imageSpecs, optionSpecs, lsmSpecs, hostileSpecs, limitSpecs)
}

// Run runs the suite against a target, each behaviour that it can have as a
// subtest.
func Run(t *testing.T, target Target) {
	for _, s := range Suite() {
		if target.Processes || !s.Processes {
			t.Run(s.Name, func(t *testing.T) { s.Run(NewBench(t, target)) })
		}
	}
}

// NewBench connects to a target for one test.
func NewBench(t *testing.T, target Target) *Bench {
	t.Helper()
	if target.Conn != nil {
		return &Bench{t, clientOf(target.Conn), target}
	}
	c, err := Dial(target.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &Bench{t, c, target}
}
