package image

import "keelson.dev/keelson/runtime/failpoint"

// The places where a record and its effect are apart: a test ends the
// program at each (test/crash).
var (
	atResolved   = failpoint.New("image.pull.resolved")
	atConfig     = failpoint.New("image.pull.config")
	atUnpacked   = failpoint.New("image.layer.unpacked")
	atSettled    = failpoint.New("image.layer.settled")
	atLayer      = failpoint.New("image.layer.kept")
	atKept       = failpoint.New("image.record.kept")
	atSaved      = failpoint.New("image.record.saved")
	atRemoved    = failpoint.New("image.remove.dropped")
	atCollecting = failpoint.New("image.collect.decided")
	atForgot     = failpoint.New("image.collect.forgotten")
	atUnlayered  = failpoint.New("image.collect.layers")
	atCollected  = failpoint.New("image.collect.blobs")
	atLoaded     = failpoint.New("image.folder.loaded")
	atPinned     = failpoint.New("image.folder.pinned")
	atSpooled    = failpoint.New("image.import.spooled")
	atSynced     = failpoint.New("image.synced")
)
