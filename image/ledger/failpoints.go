package ledger

import "keelson.dev/keelson/runtime/failpoint"

// The places where the record of images is there in part: a test ends the
// program at each (test/crash).
var (
	atWritten = failpoint.New("ledger.written")
	atRenamed = failpoint.New("ledger.renamed")
	atDurable = failpoint.New("ledger.durable")
)
