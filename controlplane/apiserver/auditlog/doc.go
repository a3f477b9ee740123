// Package auditlog writes down who asked the API for what, as upstream's audit events, one JSON object a line.
//
// A request never waits for the log: events go through a bounded buffer, and what a slow or full disk cannot take is
// dropped and counted (apiserver_audit_error_total). The file is rotated and its old ones are bounded, so that the log
// needs nobody's attention. The built-in policy records metadata only: no request or response body, hence no secret.
package auditlog
