package container

import "keelson.dev/keelson/runtime/failpoint"

// The places where a record and its effect are apart: a test ends the
// program at each (test/crash).
var (
	atBundled      = failpoint.New("container.create.bundled")
	atCreated      = failpoint.New("container.create.recorded")
	atStarting     = failpoint.New("container.start.recorded")
	atPrepared     = failpoint.New("container.start.prepared")
	atAnswered     = failpoint.New("container.start.answered")
	atRunning      = failpoint.New("container.start.running")
	atSignalled    = failpoint.New("container.stop.signalled")
	atExitHeard    = failpoint.New("container.exit.heard")
	atExitRecorded = failpoint.New("container.exit.recorded")
	atRemoving     = failpoint.New("container.remove.recorded")
	atForgotten    = failpoint.New("container.remove.forgotten")
	atUngrouped    = failpoint.New("container.remove.ungrouped")
	atRemoved      = failpoint.New("container.remove.removed")
	atExecWritten  = failpoint.New("container.exec.written")
	atExecLaunched = failpoint.New("container.exec.launched")
	atSettled      = failpoint.New("container.recover.settled")
	atHeld         = failpoint.New("container.recover.held")
	atAdopted      = failpoint.New("container.recover.adopted")
	atReopened     = failpoint.New("container.log.reopened")
)
