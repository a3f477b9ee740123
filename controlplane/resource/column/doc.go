// Package column helps to write printed columns: the NAME column, and descriptions taken from the API's own documentation.
// The texts of cells are in package cell.
//
// AGE comes by itself, before the wide columns. A kind that prints it elsewhere (nodes) or not at all (pod templates)
// sets resource.Kind.NoAge and lists all its columns, Name and Age among them.
package column
