package podlog

import (
	"bytes"
	"time"
)

// line is one parsed log line.
type line struct {
	at      []byte // the time as written
	stream  string
	partial bool
	content []byte // without the newline
}

// parse splits a line "2006-01-02T15:04:05.999999999Z07:00 stdout F content\n". ok is false for anything else.
func parse(b []byte) (l line, ok bool) {
	b = bytes.TrimSuffix(b, []byte{'\n'})
	at, rest, ok1 := bytes.Cut(b, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tags, content, ok3 := bytes.Cut(rest, []byte{' '})
	if !ok1 || !ok2 || !ok3 || len(tags) == 0 {
		return line{}, false
	}
	tag, _, _ := bytes.Cut(tags, []byte{':'})
	return line{at: at, stream: string(stream), partial: bytes.Equal(tag, []byte("P")), content: content}, true
}

// before tells whether a line was written before t. A time that cannot be read counts as late: better a line too
// many than one too few.
func (l line) before(t time.Time) bool {
	at, err := time.Parse(time.RFC3339Nano, string(l.at))
	return err == nil && at.Before(t)
}
