package crisuite

import (
	"slices"
	"testing"
)

// Spec is one behaviour.
type Spec struct {
	Name string
	// Processes is true when it needs containers that run.
	Processes bool
	Run       func(*Bench)
}

// Suite is every behaviour of this package.
func Suite() []Spec {
	return slices.Concat(lifecycleSpecs, identitySpecs, usernsSpecs, execSpecs, logSpecs, networkSpecs, statsSpecs, eventSpecs, imageSpecs)
}

// Run runs the suite against a target, each behaviour as a subtest.
func Run(t *testing.T, target Target) {
	for _, s := range Suite() {
		t.Run(s.Name, func(t *testing.T) {
			if s.Processes && !target.Processes {
				t.Skip("needs containers with real processes")
			}
			s.Run(NewBench(t, target))
		})
	}
}

// NewBench connects to a target for one test.
func NewBench(t *testing.T, target Target) *Bench {
	t.Helper()
	c, err := Dial(target.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &Bench{t, c, target}
}
