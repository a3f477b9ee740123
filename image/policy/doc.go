// Package policy says which images may be used: containers-policy.json(5), as far
// as registries go.
//
// A policy has requirements per scope ("transports": {"docker": {SCOPE: [...]}}),
// where a scope is an image, a repository, a part of its path, a registry or
// "*.domain"; the narrowest that fits decides, else "default". All requirements
// of a scope must be met:
//
//	insecureAcceptAnything  by everything
//	reject                  by nothing
//	sigstoreSigned          by images with a cosign signature of one of the keys
//	                        (keyPath, keyPaths, keyData; ECDSA, RSA, Ed25519)
//
// What is not known, such as signedBy (GPG), or keyless signing, is an error, and
// nothing is pulled: a requirement that was not understood is not met.
//
// Invariant: a signature counts only if its key is the policy's, its payload names
// the manifest's digest, and its identity the image (signedIdentity: matchExact,
// matchRepository, or the default matchRepoDigestOrExact). It is pure but for
// reading the policy and its keys.
package policy
