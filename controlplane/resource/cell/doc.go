// Package cell writes the table cells that many kinds share: ages, container names, images, yes or no.
//
// The texts are those that kubectl users know; a kind's own cells are beside its rules.
// Ages are read from the clock when the table is printed: the only place below controlplane/resource that asks for the time.
package cell
