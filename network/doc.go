// Package network gives each pod of a node its network namespace, its address and its way to everything else.
//
// The way of a pod's packet: eth0 in its namespace, a routed veth pair (see package link for why routed), the node's routing
// and its netfilter chains, then another pod's pair or the world. Pods have one address each from the node's range, kept by package
// ipam; packets to outside the cluster leave masqueraded; host ports are translations.
//
// What is durable: one record per address in RunDir/ipam, written before anything is made ("making"), again when all of it
// stands ("ready"), and when it is to go ("leaving"); the namespace itself is pinned beside it under the same name. New reads the
// records: ready ones are kept, everything else is undone, and links or pins without a record are removed.
// RunDir lies on tmpfs: namespaces do not outlive the boot either.
//
// Invariants:
//   - Setup returns an attachment only when every part of it stands; after an error or a cancelled context nothing is left but
//     an address in quarantine.
//   - Teardown returns when the pod's host ports are gone; namespace, link and address follow in the background, in that
//     order and in batches (dropping a namespace costs 3 to 45 ms, one or twenty of them), and survive a crash as "leaving".
//   - The node's own rules are the jumps and chains of netfilter's prefix, one bridge and one route.
//   - No call of one sandbox runs beside another of the same.
//
// What others take away comes back: Watch hears from the kernel (rtnetlink) that a link, an address, a route or forwarding went, looks at
// the whole, and makes what is missing of it. A pod whose link was deleted gets a new one with its old address; its connections go on.
//
// Ownership: a Network owns two goroutines, which Close ends and waits for: one drops what is leaving, one keeps the pool of spare
// attachments filled. Lock order: the sandbox's turn, then mu; mu is never held over I/O.
package network
