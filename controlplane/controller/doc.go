// Package controller runs the control loops of the control plane, one sub-package each.
//
// A controller is a pure or nearly pure decision behind Reconcile(ctx, key): it reads the shared informers' stores,
// writes through a client under its own identity (system:serviceaccount:kube-system:<name>), and may be called again
// with the same key at any time. It is level-triggered: an event only says that a key is worth a look. Loop gives it
// a queue that coalesces keys and backs off after errors. Controllers are API clients: no side door to the store.
//
// To add a controller: a sub-package with New(Deps) (*controller.Loop, error) that registers its informer handlers,
// a row in the list of cmd/keelson, and its bootstrap role in controlplane/auth if upstream has one.
package controller
