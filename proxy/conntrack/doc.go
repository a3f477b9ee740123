// Package conntrack ends UDP connections that the kernel still translates to an endpoint which no longer serves.
//
// A TCP client notices that its server is gone; a UDP sender goes on with the same addresses and the kernel goes on
// translating them as it did for the first packet, for as long as packets come. So after every change of the rules that takes something
// from a UDP port, what the kernel remembers is compared with what the Services say now.
//
// It also tells how full the kernel's table is: what does not fit is dropped, and nothing else says so but the kernel's log.
package conntrack
