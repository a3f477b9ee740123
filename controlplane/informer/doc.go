// Package informer has a SharedInformerFactory of the kinds that this server serves and nothing else.
//
// The library's own factory holds a typed informer, lister and client of each of 150 kinds, alpha and beta ones too, and the
// linker can drop none of them: a fifteenth of the whole program was that. Here a kind is one line.
//
// Informers and listers are the library's. The groups have their generally available version alone; asking for another one is
// a mistake of the program and panics.
package informer
