package netfilter

import "net/netip"

// Table is an iptables table.
type Table string

// The tables, in the order in which a packet meets them.
const (
	Raw    Table = "raw"
	Mangle Table = "mangle"
	NAT    Table = "nat"
	Filter Table = "filter"
)

// Owner is a part of keelson that has chains of its own. Its name is part of the chains' names.
type Owner string

// The owners. Owners lists them in the order in which a built-in chain calls them: policy decides before anybody accepts, and
// the node's plain accepts come after all that could refuse.
const (
	Policy   Owner = "POL"
	Service  Owner = "SVC"
	HostPort Owner = "HP"
	Node     Owner = "NET"
	Reserve  Owner = "RSV"
)

// Owners is the order of the owners' chains inside every built-in chain.
func Owners() []Owner { return []Owner{Policy, Service, HostPort, Node, Reserve} }

// Set is everything that one owner wants in the packet filter. Chains it no longer names are removed.
type Set struct {
	Chains []Chain
	Hooks  []Hook
}

// Chain is one chain of an owner. Name is short (at most 16 bytes, no spaces) and unique among the owner's chains of that table.
type Chain struct {
	Table Table
	Name  string
	Rules []Rule
}

// Hook calls the owner's chain from the built-in chain Base ("PREROUTING", "FORWARD", ...).
type Hook struct {
	Table Table
	Base  string
	Chain string
}

// Rule is a match and what happens to the packets that match.
type Rule struct {
	Match   Match
	Target  Target
	Comment string // for people; quotes and control characters are dropped, cut at 200 bytes
}

// Match is a conjunction; the zero value matches every packet.
type Match struct {
	In, Out       string // interface; a trailing "+" stands for any ending
	NotIn, NotOut bool
	Src, Dst      netip.Prefix
	NotSrc        bool
	NotDst        bool
	DstBits       Bits   // matches bits of the destination address; for dispatch by hash
	Proto         string // "tcp", "udp", "sctp", "icmp"; "" for any
	SrcPorts      Ports
	DstPorts      Ports
	State         State // any of these
	NotState      State // none of these
	SrcLocal      Tri   // is the source (destination) an address of this node?
	DstLocal      Tri
	Mark          Mark    // (packet mark & Mask) == Value
	Probability   float64 // 0 means always; else matches this share of the packets
	Recent        Recent
	SYN           Tri // TCP: Yes is the first packet of each side, No every packet but a client's first
}

// Bits matches (address & Mask) == Value on an IPv4 address in host order; a zero Mask matches all.
type Bits struct{ Value, Mask uint32 }

// Ports is a range of ports, both ends included; the zero value is any port. To 0 means the one port From.
type Ports struct{ From, To uint16 }

// Port is the range of one port.
func Port(p uint16) Ports { return Ports{From: p} }

// Tri is a question that may not be asked.
type Tri int8

// Answers of a Tri.
const (
	Any Tri = iota
	Yes
	No
)

// Mark is a value under a mask; a zero Mask means "not asked".
type Mark struct{ Value, Mask uint32 }

// Answer marks packets of connections that the node's own programs began to its pods, by the mark of their sockets; [SocketMark] gives it
// to what comes back. Nothing comes in with a mark.
var Answer = Mark{Value: 0x20000, Mask: 0x20000}

// State is a set of connection tracking states.
type State uint8

// States as conntrack knows them. DNATed holds for every packet of a connection whose destination was translated.
const (
	New State = 1 << iota
	Established
	Related
	Invalid
	Untracked
	DNATed
)

// Recent asks or writes a list of recently seen source addresses (client IP affinity). An empty List means unused.
type Recent struct {
	List    string
	Set     bool // write the source address instead of asking
	Seconds int  // asking: only entries younger than this count, older ones are dropped
}

// Verb is what a rule does with a packet.
type Verb string

// The verbs. Jump and Goto take Chain, DNAT takes To, SetMark takes Mark, Reject sends what suits the protocol.
const (
	Accept     Verb = "ACCEPT"
	Drop       Verb = "DROP"
	Reject     Verb = "REJECT"
	Return     Verb = "RETURN"
	Jump       Verb = "JUMP"
	Goto       Verb = "GOTO"
	DNAT       Verb = "DNAT"
	Masquerade Verb = "MASQUERADE"
	SetMark    Verb = "MARK"
	NoTrack    Verb = "NOTRACK"
	ClampMSS   Verb = "TCPMSS"
	SocketMark Verb = "SKMARK" // PREROUTING: a packet for a connected socket of the node, by its untranslated addresses, takes that socket's mark
	Continue   Verb = ""       // no target: the match counts, or has an effect of its own (Recent.Set)
)

// Target is a verb with its argument.
type Target struct {
	Verb  Verb
	Chain string         // Jump, Goto: a chain of the same owner
	To    netip.AddrPort // DNAT; port 0 keeps the port
	Mark  Mark           // SetMark: mark = (mark &^ Mask) | Value
	Reset bool           // Reject: answer TCP with a reset
}

// To returns the target of a verb that takes no argument.
func To(v Verb) Target { return Target{Verb: v} }

// JumpTo returns a jump to a chain of the same owner.
func JumpTo(chain string) Target { return Target{Verb: Jump, Chain: chain} }
