// Package inflate decompresses gzip, fast.
//
// A pull of gzip layers spends three quarters of its processor time in inflate,
// and the libraries at hand read their input byte by byte. This one loads eight
// bytes at a time into a 64-bit buffer, decodes up to three literals per load
// from tables with packed entries, and copies matches in words; it has no
// assembly and no unsafe. The technique is libdeflate's and zlib-ng's; the code is
// ours. Measured against klauspost/compress in bench_test.go, checked against
// compress/gzip by fuzzing.
//
// Invariants: memory is fixed (a window and two tables, about 450 KiB); every
// table index is masked or bounded by construction, every match lies inside what
// was written; what is accepted is a subset of what compress/gzip accepts, with
// the same bytes.
//
// Sources: RFC 1951 (deflate), RFC 1952 (gzip).
package inflate
