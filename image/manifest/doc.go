// Package manifest reads the documents of an image (index, manifest, config)
// from outside bytes into checked values, and chooses from an index. All pure.
//
// Invariant: what Parse and ParseConfig return is bounded (size, counts), has
// valid sha256/sha512 digests only, known media types only, and cannot be read
// as another kind of document (GHSA-5j5w-g665-5m35).
//
// Sources: OCI image-spec 1.1, Docker image manifest v2 schema 2.
package manifest
