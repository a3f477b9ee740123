// Package logfile reads and writes container logs in the CRI format:
//
//	2026-11-22T17:00:00.123456789Z stdout F message
//
// one record a line: RFC 3339 time with nanoseconds in UTC, stream, tag,
// content. Tag F ends a line of the container's output, P is a piece of a line
// that goes on in the next record of the same stream. A piece is never longer
// than MaxContent.
//
// Format and Parse are pure. A Writer is owned by one goroutine (the keeper's
// loop); a Reader by one caller. Rotation renames the file and asks for a new
// one (Writer.Reopen); a Reader that follows goes through the rest of the
// renamed file before it opens the new one, so no record is lost or doubled.
package logfile
