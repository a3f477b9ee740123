package keeper

import "keelson.dev/keelson/runtime/failpoint"

// The places where a keeper is there in part: a test ends the
// program at each (test/crash).
var (
	atListening = failpoint.New("keeper.spawn.listening")
	atSpawned   = failpoint.New("keeper.spawn.started")
)
