// Package column holds the printed columns that many kinds share: the age, container names and images.
//
// A printed age is relative to the moment of printing, so this package reads the clock; nothing stored depends on it.
// AGE comes by itself, before the wide columns. A kind that prints it elsewhere (nodes) or not at all (pod templates)
// sets resource.Kind.NoAge and lists all its columns, Name and Age among them.
package column
