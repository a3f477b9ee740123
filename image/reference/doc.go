// Package reference reads image names as users write them and gives them one
// normal form.
//
// Invariant: a Reference that Parse returned is fully qualified (registry host
// and repository path) and carries exactly one of a tag and a digest; its
// String parses to itself. All of it is pure.
package reference
