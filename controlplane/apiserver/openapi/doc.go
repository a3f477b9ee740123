// Package openapi serves the OpenAPI documents of the built-in API.
//
// They are made at build time (generate.sh) and embedded compressed: making them from Go types takes a running server a
// third of a second and 50 MB, and most servers are never asked. All are compressed by one of them, as they repeat each
// other: a third of what each would take alone. Nothing is kept in memory but what others add (custom resources).
//
// A document is missing or old when a kind was added and generate.sh not run; a test of apiserver tells.
package openapi
