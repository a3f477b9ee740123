// Package stream serves exec, attach and port-forward to the kubelet over HTTP
// upgrades: WebSocket (v1 to v5 of channel.k8s.io) and SPDY.
//
// The CRI call that asks for a stream gets a URL with a token in it; whoever
// opens the URL first gets the stream. A token has 128 random bits, works once
// and for one minute, and is not found afterwards. The listener is bound to a
// loopback address, so only this machine can try.
//
// The server owns its listener, its connections and the goroutine that accepts;
// Close ends them and waits. A client that vanishes ends the context of what it
// was doing: an exec'd process is killed, a forwarded connection closed.
package stream
