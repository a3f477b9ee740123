package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// What lasts, such as a quota that is used up, is tried again and again, and told now and then; what the next look at the
// informers mends is not told.
func TestFailuresAreNotToldEachTime(t *testing.T) {
	gone := apierrors.NewNotFound(schema.GroupResource{Group: "apps", Resource: "deployments"}, "web")
	conflict := apierrors.NewConflict(schema.GroupResource{Group: "apps", Resource: "deployments"}, "web", errors.New("changed"))
	for _, c := range []struct {
		name  string
		err   error
		tries int
		told  int
	}{
		{"a quota", errors.New("exceeded quota"), 17, 3}, // the 1st, 9th and 17th
		{"a conflict", conflict, 17, 0},
		{"the object has gone", fmt.Errorf("update web: %w", gone), 1, 0},
		{"something that it needs is not there", gone, 17, 2}, // the 9th and 17th
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				done := make(chan struct{})
				n := 0
				loop := NewLoop("test", slog.New(slog.NewTextHandler(&out, nil)), 1, func(context.Context, string) (again time.Duration, err error) {
					if n++; n <= c.tries {
						return 0, c.err
					}
					close(done)
					return 0, nil
				})
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- loop.Run(ctx) }()
				loop.Add("ns/web")
				<-done
				cancel()
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
				if got := strings.Count(out.String(), "level=WARN"); got != c.told {
					t.Errorf("%d failures are told in %d lines, want %d:\n%s", c.tries, got, c.told, &out)
				}
			})
		})
	}
}
