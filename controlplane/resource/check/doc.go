// Package check holds the small validation rules that kinds of several groups share, with upstream's messages.
//
// Every function is pure and returns the errors it found; a kind's own rules are beside its row in the table.
package check
