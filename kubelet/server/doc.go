// Package server is the kubelet's HTTPS API on port 10250: logs, exec, attach, port-forward, run, the list of pods,
// metrics and statistics. Its clients are the API server, metrics collectors and nobody anonymous.
//
// Every request but none is authenticated and authorized, as an access to a subresource of this node: reads as "get"
// on nodes/log, nodes/stats, nodes/metrics, nodes/pods, nodes/healthz, nodes/configz (KEP-2862), everything else on
// nodes/proxy. What runs something in a container needs "create", whatever the HTTP method: a WebSocket begins with
// GET, and a monitoring account must not get a shell by it (HOSTILE ST1).
//
// Streams (exec, attach, port-forward) are not understood here: the runtime is asked over CRI for a URL and the
// client's upgrade is passed on to it, SPDY or WebSocket alike.
//
// Ownership: a request's goroutine owns all that it opens; Server.Run ends when its context does.
package server
