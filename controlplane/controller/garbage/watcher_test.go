package garbage

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// A group whose server is away for weeks is said once and asked for ever less often; one that was back and is away again is news.
func TestLacks(t *testing.T) {
	var l lacks
	one, two := errors.New("a/v1 is stale"), errors.New("a/v1 and b/v1 are stale")
	for i, step := range []struct {
		err   error
		news  bool
		again time.Duration
	}{
		{nil, false, 0},
		{one, true, 2 * time.Second}, {one, false, 4 * time.Second}, {one, false, 8 * time.Second}, {one, false, 16 * time.Second},
		{one, false, 30 * time.Second}, {one, false, 30 * time.Second},
		{two, true, 30 * time.Second},
		{nil, false, 0},
		{two, true, 2 * time.Second},
	} {
		if news, again := l.next(step.err); news != step.news || again != step.again {
			t.Errorf("step %d, %v: got %v, %v; want %v, %v", i, step.err, news, again, step.news, step.again)
		}
	}
}

// What is not found is gone, unless it is of a group whose server does not answer.
func TestUnknown(t *testing.T) {
	here, there := schema.GroupVersion{Group: "here.test", Version: "v1"}, schema.GroupVersion{Group: "there.test", Version: "v1"}
	part := fmt.Errorf("look: %w", &discovery.ErrGroupDiscoveryFailed{Groups: map[schema.GroupVersion]error{there: errors.New("stale")}})
	for _, c := range []struct {
		err         error
		here, there bool
	}{{nil, false, false}, {part, false, true}, {errors.New("no answer at all"), true, true}} {
		if got := unknown(c.err, here); got != c.here {
			t.Errorf("%v: the group that answers is unknown: %v, want %v", c.err, got, c.here)
		}
		if got := unknown(c.err, there); got != c.there {
			t.Errorf("%v: the silent group is unknown: %v, want %v", c.err, got, c.there)
		}
	}
}
