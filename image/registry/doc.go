// Package registry is a client of the OCI distribution API: it resolves names,
// reads manifests and streams blobs.
//
// Invariants:
//   - Credentials and configured headers go to the configured host alone (same
//     scheme, host and port); a redirect target never sees them and its own
//     challenges are not answered. A token server gets credentials only over TLS
//     (or from a registry that is itself configured for plain HTTP) and only
//     when it is of the registry's own site or named in hosts.toml (token_hosts).
//   - Plain HTTP and unverified TLS only where hosts.toml says so, or loopback.
//   - Every wait is bounded: connecting, headers, and bytes per window; every
//     read has a limit; a blob stream is as long as promised or an error.
//   - Errors say what the registry said, shortened and without control
//     characters; secrets are in none of them.
//
// hosts.toml is containerd's format: see hosts.go. Sources: OCI distribution-spec
// 1.1, Docker token and OAuth2 authentication specs.
//
// Ownership: a Client keeps connections, Close drops the idle ones. A Repository
// lives for one pull. Blob readers start one timer each and stop it on Close.
package registry
