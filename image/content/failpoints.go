package content

import "keelson.dev/keelson/runtime/failpoint"

// The places where a blob is there in part: a test ends the
// program at each (test/crash).
var (
	atWhole    = failpoint.New("content.blob.whole")
	atVisible  = failpoint.New("content.blob.visible")
	atStreamed = failpoint.New("content.stream.whole")
	atDropped  = failpoint.New("content.blob.dropped")
)
