// Package kubelet is the node agent: desired pods in, CRI calls out, status back. It knows the runtime only as CRI
// v1 and the cluster only as an API client.
//
// A pod's way through it:
//
//	source      the API watch and the folder of static pods say which pods this node is to have
//	podworker   one goroutine per pod, woken by anything that may matter to it
//	  observe     what the runtime holds of the pod (CRI events mark it stale, CRI lists tell the truth)
//	  plan        pure: (spec, observed, memory, now) -> actions
//	  act, pull   carry actions out over CRI; probe asks the running containers
//	  podstatus   pure: (spec, observed, waiting, probes) -> status
//	statuswriter  the status goes to the API, newest only, until it is there
//
// The loop is level-triggered: losing any event costs latency, never correctness. The daemon may be killed at any
// moment: what it must know again it reads from the runtime's labels and the API; what it only remembered (back-off,
// running probes) starts anew.
//
// Ownership: Run owns every goroutine and returns after they have ended; containers go on. Lock order: Kubelet.mu,
// then record.mu; neither is held across an RPC or a call into podworker, statuswriter or observe.
package kubelet
