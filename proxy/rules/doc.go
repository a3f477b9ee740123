// Package rules turns the ports of Services into a packet filter ruleset. Pure.
//
// The way of a connection through nat (PREROUTING for what comes in, OUTPUT for the node's own):
//
//	SERVICES -> B-nn (by the destination's low bits) -> I-<port>  cluster IP: internal endpoints
//	                                                 -> X-<port>  outside addresses: policy, then C- or L-
//	         -> NODEPORTS (destination is the node)  -> X-<port>
//	I-, C-, L-<port>: translate to an endpoint, evenly by chance; with affinity through E-<endpoint>, which remembers
//	                  the client, or to where the client went last
//
// and MASQ in POSTROUTING lets marked packets leave with an address of the node, and also the connection of a pod that reached
// itself, which can happen only to endpoints on this node. In filter, FORWARD, INPUT and OUTPUT refuse new
// connections to ports without endpoints (R-nn), and drop what a load balancer's source ranges or a Local policy exclude.
//
// A Service's chains depend on that Service alone; the only shared ones are the small dispatch chains. So a change of one
// Service among thousands rewrites its own chains and one B-nn.
package rules
