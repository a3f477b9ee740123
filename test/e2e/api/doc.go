// Package api points clients that nobody here wrote at a server as a user starts it: kubectl's own code by scripts
// (testdata/kubectl), helm 4, and a controller on client-go; and proves what controllers rely on: admission by webhooks and policies.
package api
