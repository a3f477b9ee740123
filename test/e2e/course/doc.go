// Package course takes the course of test/lessons row by row: each lesson's manifest is applied to a server and its stated outcome
// is looked for from outside, by HTTP, by DNS, in files and in the API. Every test has a namespace of its own on a shared server.
// The lessons of one pod and its volumes (01, 11-14) are in test/e2e; lesson 15
// and the rest of 16 are TestStatic and TestDynamic of test/e2e/storage.
package course
