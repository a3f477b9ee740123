// Package local makes, grows and removes volumes in one folder of a node, for the built-in provisioner, and attaches disk
// images as loop devices.
//
// A volume is named by its claim, pvc-<uid>, and by nothing else: no path comes from the API. A filesystem volume is a
// folder that a project quota holds to its size where the filesystem has them (ext4 with the project feature and XFS, mounted
// with prjquota); a block volume is a disk image. Removal renames first and then deletes by descriptor below the
// folder, so neither a pod that still writes nor a link that it has left reaches anything else.
//
//	<root>/pvc-<uid>        a folder, or a disk image
//	<root>/new-pvc-<uid>    being made
//	<root>/gone-pvc-<uid>   being removed
package local
