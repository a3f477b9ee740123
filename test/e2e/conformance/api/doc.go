// Package api asks for what upstream's conformance suite asserts of API machinery, authentication and authorization, and kubectl:
// status codes, messages, fields, counts, the order of events. Pods run the folder agnhost's program.
package api
