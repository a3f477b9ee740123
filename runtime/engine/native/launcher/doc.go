// Package launcher runs the native engine's programs in the keeper.
//
// A process of its own, the launcher, is the keeper's program in another mode:
// C only, a single thread, less than a megabyte, started once. It receives a
// program and its descriptors over a socket and clones a child for it, whose
// parent is the keeper (CLONE_PARENT), not the launcher. The child maps the
// image and interprets it: see native/image.go for the form, launcher.c for
// the forty lines that give it meaning.
//
// The child tells the keeper over a socket of its own how it fares: a byte is
// sent to it to let its program go, an error comes from it, and the socket
// closes when the program was executed.
//
// If the launcher dies, the next launch starts another. It ends with the
// keeper, since its socket then does.
package launcher
