// Package garbage deletes objects whose owners are gone, and carries out foreground and orphan deletion.
//
// graph.go holds who owns whom, by UID, fed by one metadata informer per deletable resource (objects are reduced to what
// the graph needs before they are stored). Watching a resource begins when discovery shows it and ends when it goes.
// decide.go is pure: an object and what is known of its owners in, one action out. The shell asks the API whether an
// owner that the graph lacks is really gone before anything is deleted for it: a cache that lags must never kill.
//
// Lock order: graph.mu is the only lock, never held over I/O.
package garbage
