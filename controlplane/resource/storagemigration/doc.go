// Package storagemigration describes the group storagemigration.k8s.io: StorageVersionMigration, the order to
// rewrite all objects of a resource in the version that is stored today.
package storagemigration
