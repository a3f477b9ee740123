// Package cri is the Container Runtime Interface (v1) over gRPC: it composes
// images, containers, sandboxes and the network, and adds no mechanism of its
// own. A kubelet, crictl or critest that is pointed at its socket finds a whole
// runtime behind it.
//
// cmd builds it so (errors left out):
//
//	images, _     := image.Open(image.Config{Root: data + "/images", ...})
//	containers, _ := container.Open(container.ManagerConfig{StateDir: run + "/containers", ...})
//	sandboxes, _  := sandbox.New(sandbox.ManagerConfig{...})
//	pods, _       := network.New(network.Config{...})
//	srv, _        := cri.New(cri.Config{RunDir: run + "/cri", ...},
//	                         cri.Deps{Images: images, Containers: containers, Sandboxes: sandboxes, Network: pods})
//	ln, _         := cri.Listen(run + "/cri.sock")
//	err           := srv.Serve(ctx, ln) // until ctx ends; pods go on
//
// What is remembered here is what was asked (podstore); what runs is the
// runtime's to know, and every answer joins the two. New rebuilds from both and
// takes back whatever a dead daemon left half made.
//
// Rules of every call:
//   - a record is written before the effect it announces, and the effect's undo
//     is pushed before the effect; a failed or cancelled call takes back all of
//     it, on a context of its own (undo);
//   - a creation that is repeated with the same identity gets the first one's
//     result, even if the first one's client ran out of time: such a creation
//     goes on (creation.go); stopping and removing what is not there succeeds;
//   - the request is validated before anything is touched; nil messages and
//     unknown enum values are InvalidArgument;
//   - one table (errors.go) says which error becomes which gRPC code.
//
// Ownership: Server owns its tables, event hub, streaming server, the goroutine
// that reads runtime events and the creations that outlive their clients. It does
// not own Deps.
//
// Order of locks: a pod's gate, then its use gate, then a container's gate. A
// gate serialises the calls on one object, is taken with the call's context, and
// may be held across I/O; mutexes are leaves and are not.
package cri
