package netns

import "keelson.dev/keelson/runtime/failpoint"

// The places where a namespace exists in part: a test ends the
// program at each (test/crash).
var (
	atPlace     = failpoint.New("netns.create.place")
	atInside    = failpoint.New("netns.create.inside")
	atUnmounted = failpoint.New("netns.remove.unmounted")
)
