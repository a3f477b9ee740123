package snapshot

import "keelson.dev/keelson/runtime/failpoint"

// The places where a layer or a mount is there in part: a test ends the
// program at each (test/crash).
var (
	atDraft     = failpoint.New("snapshot.draft.made")
	atCommitted = failpoint.New("snapshot.layer.committed")
	atPrepared  = failpoint.New("snapshot.mount.prepared")
	atMounted   = failpoint.New("snapshot.mount.mounted")
	atUnmounted = failpoint.New("snapshot.mount.unmounted")
	atDiscarded = failpoint.New("snapshot.discarded")
	atEmptied   = failpoint.New("snapshot.trash.emptied")
	atViewed    = failpoint.New("snapshot.view.mounted")
)
