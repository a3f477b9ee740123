package network

import "keelson.dev/keelson/runtime/failpoint"

// The places where a record and its effect are apart: a test ends the
// program at each (test/crash).
var (
	atWired     = failpoint.New("network.setup.wired")
	atConnected = failpoint.New("network.setup.connected")
	atWritten   = failpoint.New("network.setup.written")
	atAdmitted  = failpoint.New("network.setup.admitted")
	atPorted    = failpoint.New("network.setup.ported")
	atReady     = failpoint.New("network.setup.ready")
	atLeaving   = failpoint.New("network.teardown.recorded")
	atUnported  = failpoint.New("network.teardown.unported")
	atUnpinned  = failpoint.New("network.drop.unpinned")
	atForgotten = failpoint.New("network.drop.forgotten")
	atSpare     = failpoint.New("network.spare.built")
)
