// Package images tries `keelson image` as a user types it, against the runtime alone (`keelson cri`): pull, ls, rm, verify
// with a blob damaged on the disk, and archives of both kinds both ways.
package images
