// Package hostport turns the host ports of a node's pods into a ruleset. Pure: values in, values out.
//
// A host port is a destination translation in nat PREROUTING (from elsewhere and from pods) and OUTPUT (from the node itself, so
// also on 127.0.0.1). Packets that would find no way back with the source they have, from the node's loopback and from the pod to
// itself, are marked and leave masqueraded.
package hostport
