// Package server is the keeper: parent of all containers of a node.
//
// One goroutine, the loop, owns everything about containers: their pidfds,
// their output, their attachments. It sleeps in epoll and is woken by events
// or by functions that other goroutines hand it (loop.do). Each connection has
// a reader and a writer; a request that takes time (starting a process) runs
// in a goroutine of its own and hands its result to the loop.
//
// Output. A container writes into FIFOs that it opened for reading and
// writing, so it never sees a closed pipe. The pump looks at what is in a FIFO
// without taking it (tee), appends the complete lines to the log, and only
// then takes exactly those bytes out; the start of a line stays where it is.
// A journal in a mapped file says at every moment how far this went, so that
// the next keeper finishes the step in which this one was killed: each byte is
// logged once (see journal).
//
// Ends. A pidfd tells that a process ended; its status is read without reaping
// it, the output drained, the exit record written, the process reaped, and
// only then is the end reported. Whichever of these steps a kill interrupts,
// the next keeper can still learn the code: from the record, from the zombie's
// new parent, or from the pidfd (PIDFD_GET_INFO).
//
// Locks: loop.mu, session.mu; neither is held while another is taken.
package server
