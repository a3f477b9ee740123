// Package namespace empties a namespace that is being deleted, in order, and lets it go.
//
// Pods go first and are waited for (KEP-5080: a NetworkPolicy must outlive the pods that it confines), then everything
// else. What still holds the namespace is said in its conditions, by name: a finalizer, or an API that does not answer.
package namespace
