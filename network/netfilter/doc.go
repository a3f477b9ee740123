// Package netfilter is the leaf through which keelson changes the node's packet filter: a ruleset is a value,
// it is applied as a whole in one transaction, and imaginary packets can be sent through it in tests.
//
// A ruleset belongs to an [Owner] (the pod network, host ports, Services, network policy). [IPTables.Apply] takes the whole
// [Set] that an owner wants, works out which chains differ from what the kernel holds and hands those to one
// iptables-restore --noflush per call; a Set that is already in force costs no exec at all.
//
// Invariants:
//   - Only chains named <prefix>-... are ever changed, and in each built-in chain exactly one rule: the jump to
//     <prefix>-<BUILTIN>. The host's own rules stay as they are.
//   - No moment without rules: a chain is replaced inside one transaction, and the chains which an earlier process left are
//     kept until their owner has spoken.
//   - In a built-in chain the owners' chains stand in the order of [Owners].
//   - Whatever fails, what is remembered about the kernel is thrown away and read anew before the next change.
//
// Ownership: an IPTables has no goroutine; [IPTables.Watch] runs on its caller's. Lock order: there is one turn (a channel
// of one), which is held over the exec so that transactions do not overlap, and a caller whose context ends
// stops waiting for it.
package netfilter
