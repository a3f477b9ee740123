package store

import (
	"time"

	"k8s.io/utils/clock"
)

// beat is a clock whose timers of about a second end together, at the same moments for all: every watch cache looks each
// second for watchers that want a bookmark, and a hundred caches would otherwise wake an idle processor a hundred times a second.
type beat struct{ clock.RealClock }

// beatLeast and beatMost bound the timers that are brought into step: the library's own spread of a second.
const (
	beatLeast = 750 * time.Millisecond
	beatMost  = 1250 * time.Millisecond
)

// NewTimer implements clock.Clock.
func (b beat) NewTimer(d time.Duration) clock.Timer {
	return beatTimer{b.RealClock.NewTimer(inStep(time.Now(), d))}
}

type beatTimer struct{ clock.Timer }

// Reset implements clock.Timer.
func (t beatTimer) Reset(d time.Duration) bool { return t.Timer.Reset(inStep(time.Now(), d)) }

// inStep is d changed by no more than half a second so that it ends with a second, if it is of the kind that can wait.
func inStep(now time.Time, d time.Duration) time.Duration {
	if d < beatLeast || d > beatMost {
		return d
	}
	next := now.Truncate(time.Second).Add(time.Second)
	if next.Sub(now) < time.Second/2 {
		next = next.Add(time.Second)
	}
	return next.Sub(now)
}
