// Package track remembers which Services changed since somebody last looked, from the events of two informers.
//
// It keeps names only; objects are read from the informers' stores when the changes are taken, so that many events of one Service
// are one change, and what is read is the latest.
package track
