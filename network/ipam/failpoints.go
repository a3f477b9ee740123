package ipam

import "keelson.dev/keelson/runtime/failpoint"

// The places where the record of an address and its use are apart: a test ends the
// program at each (test/crash).
var (
	atReserved = failpoint.New("ipam.reserved")
	atReleased = failpoint.New("ipam.released")
)
