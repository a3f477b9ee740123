package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// MaxContent is the longest content of one record in bytes; longer lines are
// split into P records. It is containerd's and CRI-O's value.
const MaxContent = 16 << 10

// timeLayout is RFC 3339 with all nine digits, so that records sort as text.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

// Stream says where a record came from.
type Stream string

// The two streams of a container. A terminal's output counts as stdout.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Format appends the records for the complete lines in data to dst and says
// how many bytes of data they cover. What remains is the start of a line that
// has not ended: it is covered only once it is MaxContent long, or when final
// says that nothing will follow. Same input, same output: the keeper relies on
// this to finish a write that was cut short by its death.
func Format(dst []byte, at time.Time, stream Stream, data []byte, final bool) (out []byte, covered int) {
	stamp := make([]byte, 0, len(timeLayout)+8)
	stamp = at.UTC().AppendFormat(stamp, timeLayout)
	stamp = append(stamp, ' ')
	stamp = append(stamp, stream...)
	for covered < len(data) {
		rest := data[covered:]
		window := rest
		if len(window) > MaxContent+1 {
			window = window[:MaxContent+1]
		}
		end := bytes.IndexByte(window, '\n')
		switch {
		case end >= 0:
			dst = appendRecord(dst, stamp, 'F', rest[:end])
			covered += end + 1
		case len(rest) > MaxContent:
			dst = appendRecord(dst, stamp, 'P', rest[:MaxContent])
			covered += MaxContent
		case final:
			dst = appendRecord(dst, stamp, 'P', rest)
			covered += len(rest)
		default:
			return dst, covered
		}
	}
	return dst, covered
}

func appendRecord(dst, stamp []byte, tag byte, content []byte) []byte {
	dst = append(dst, stamp...)
	dst = append(dst, ' ', tag, ' ')
	dst = append(dst, content...)
	return append(dst, '\n')
}

// Record is one parsed line of a log file.
type Record struct {
	Time    time.Time
	Stream  Stream
	Partial bool   // tag P: the line goes on in the stream's next record
	Content []byte // without the newline; aliases the parsed line
}

// Append adds what the container wrote: the content, and its newline unless
// the record is partial.
func (r Record) Append(dst []byte) []byte {
	dst = append(dst, r.Content...)
	if !r.Partial {
		dst = append(dst, '\n')
	}
	return dst
}

// ErrMalformed marks a line that is not a CRI log record.
var ErrMalformed = errors.New("not a CRI log record")

// Parse reads one line (with or without its newline). Tags may be followed by
// more tags after a colon (CRI leaves room for them); only the first counts.
func Parse(line []byte) (Record, error) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	stamp, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return Record{}, fmt.Errorf("parse log line of %d bytes: %w: no stream", len(line), ErrMalformed)
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return Record{}, fmt.Errorf("parse log line of %d bytes: %w: %v", len(line), ErrMalformed, err)
	}
	stream, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok || (Stream(stream) != Stdout && Stream(stream) != Stderr) {
		return Record{}, fmt.Errorf("parse log line of %d bytes: %w: stream %.16q", len(line), ErrMalformed, stream)
	}
	tags, content, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		// An empty line is written by some runtimes without the last space.
		tags, content = rest, nil
	}
	tag, _, _ := bytes.Cut(tags, []byte(":"))
	if len(tag) != 1 || (tag[0] != 'F' && tag[0] != 'P') {
		return Record{}, fmt.Errorf("parse log line of %d bytes: %w: tag %.16q", len(line), ErrMalformed, tag)
	}
	return Record{Time: at, Stream: Stream(stream), Partial: tag[0] == 'P', Content: content}, nil
}
