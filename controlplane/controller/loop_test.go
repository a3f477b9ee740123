package controller

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A quota that stays used up is tried again and again, and told now and then.
func TestLastingFailureIsNotToldEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		const tries = 17
		done := make(chan struct{})
		n := 0
		loop := NewLoop("test", slog.New(slog.NewTextHandler(&out, nil)), 1, func(context.Context, string) (again time.Duration, err error) {
			if n++; n <= tries {
				return 0, errors.New("exceeded quota")
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
		if got := strings.Count(out.String(), "level=WARN"); got != 3 { // the 1st, 9th and 17th
			t.Errorf("%d failures are told in %d lines:\n%s", tries, got, &out)
		}
	})
}
