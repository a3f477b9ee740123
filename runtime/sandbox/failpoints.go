package sandbox

import "keelson.dev/keelson/runtime/failpoint"

// The places where a record and its effect are apart: a test ends the
// program at each (test/crash).
var (
	atRecorded  = failpoint.New("sandbox.create.recorded")
	atGrouped   = failpoint.New("sandbox.create.grouped")
	atPaused    = failpoint.New("sandbox.create.paused")
	atPinned    = failpoint.New("sandbox.create.pinned")
	atShared    = failpoint.New("sandbox.create.shared")
	atMade      = failpoint.New("sandbox.create.made")
	atRemoving  = failpoint.New("sandbox.remove.recorded")
	atUnpaused  = failpoint.New("sandbox.remove.unpaused")
	atUnpinned  = failpoint.New("sandbox.remove.unpinned")
	atUngrouped = failpoint.New("sandbox.remove.ungrouped")
)
