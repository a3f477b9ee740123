// Package cronjob starts Jobs by the clock.
//
// decide (plan.go) is pure: the CronJob, its Jobs and the time in; which Job to start, which to delete, the status and
// when to look again out. A Job's name is made from the minute that it was due at, so that the same run is started once
// whatever is lost or repeated. Many missed runs become one, the last (upstream's rule); one that is later than
// startingDeadlineSeconds is left out.
package cronjob
