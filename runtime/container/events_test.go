package container

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestSlowReaderIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := newHub()
		slow, fast := h.subscribe(ctx), h.subscribe(ctx)
		seen := make(chan int)
		go func() {
			n := 0
			for range fast {
				n++
			}
			seen <- n
		}()
		const count = 3 * maxBehind
		for i := range count {
			h.publish(fmt.Sprint(i), EventStarted, time.Now())
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		lost, last := false, ""
	drain:
		for {
			select {
			case e := <-slow:
				lost = lost || e.Kind == EventLost
				last = e.ContainerID
			default:
				synctest.Wait()
				select {
				case e := <-slow:
					lost = lost || e.Kind == EventLost
					last = e.ContainerID
				default:
					break drain
				}
			}
		}
		if !lost || last != fmt.Sprint(count-1) {
			t.Errorf("lost %v, last %q", lost, last)
		}
		cancel()
		if n := <-seen; n != count {
			t.Errorf("the fast reader saw %d of %d", n, count)
		}
	})
}
