// Package events describes the group events.k8s.io: the newer face of the core group's Event.
//
// Both faces are one stored object. This package owns no store: it reads and writes the core group's,
// converting at the edge, so what is written through one face is seen through the other at the same revision.
package events
