// Package policy enforces NetworkPolicy v1 on a node's pods.
//
// [Compile] is pure: policies, pods and namespaces in, a ruleset out. In filter, FORWARD and INPUT (what a pod sends to the node) lead a
// new connection through
//
//	POD -> O-<pod>  what an isolated pod may send     -> Q-<policy>-<n>: ports -> S-<peers>: addresses
//	    -> I-<pod>  what an isolated pod may receive
//
// A policy that allows the connection sets a mark; a pod's chain drops what comes back without it. So a connection between two isolated
// pods of one node must be allowed by both. Chains of peers are shared by all rules that name the same selector: a pod that comes
// or goes rewrites only the chains of the selectors that choose it.
//
// What the node itself sends to its pods (probes) is never stopped, nor what a pod sends to itself, nor answers.
//
// [Engine] keeps the ruleset current and is asked by the network before a pod gets its address into use: Admit returns when the
// pod's policies are in the kernel. A pod whose labels are not known yet is treated as chosen by every policy of its namespace
// and allowed nothing: it is better to be late than open.
//
// Ownership: Engine.Run owns the one goroutine. Lock order: the mutex is not held over Apply.
package policy
