// Package batch describes the group batch: Job and CronJob.
//
// A Job's selector is generated from its UID unless the user insists, so that no two jobs ever count each other's pods.
package batch
