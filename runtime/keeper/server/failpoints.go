package server

import "keelson.dev/keelson/runtime/failpoint"

// The places where a record and its effect are apart: a test ends the
// program at each (test/crash).
var (
	atRunTaken        = failpoint.New("keeper.run.taken")
	atRunOwned        = failpoint.New("keeper.run.owned")
	atRunWatched      = failpoint.New("keeper.run.watched")
	atRunRecorded     = failpoint.New("keeper.run.recorded")
	atRunStarted      = failpoint.New("keeper.run.started")
	atExecStarted     = failpoint.New("keeper.exec.started")
	atExecEnded       = failpoint.New("keeper.exec.ended")
	atExecTold        = failpoint.New("keeper.exec.told")
	atEndSeen         = failpoint.New("keeper.end.seen")
	atEndCleared      = failpoint.New("keeper.end.cleared")
	atEndDrained      = failpoint.New("keeper.end.drained")
	atEndRecorded     = failpoint.New("keeper.end.recorded")
	atEndReaped       = failpoint.New("keeper.end.reaped")
	atLogBegun        = failpoint.New("keeper.log.begun")
	atLogWritten      = failpoint.New("keeper.log.written")
	atLogTaking       = failpoint.New("keeper.log.taking")
	atLogTaken        = failpoint.New("keeper.log.taken")
	atLogReopened     = failpoint.New("keeper.log.reopened")
	atAdopted         = failpoint.New("keeper.adopt.taken")
	atForgotten       = failpoint.New("keeper.forget.done")
	atUpgradeAccepted = failpoint.New("keeper.upgrade.accepted")
	atUpgradePassing  = failpoint.New("keeper.upgrade.passing")
)
