package unpack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"

	"keelson.dev/keelson/image/unpack/inflate"
)

const zstdWindow = 128 << 20 // bytes; zstd --long=27, the most that decoders take unasked

// Decompress undoes gzip or zstd, or passes bytes through. It looks at the first
// bytes, not at a media type: registries hold many a layer whose type is wrong.
func Decompress(src io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(src, 64<<10)
	head, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return io.NopCloser(inflate.NewReader(br)), nil
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), isSkippable(head):
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderMaxMemory(zstdWindow))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}

// isSkippable recognises a zstd skippable frame (0x184D2A50 to 5F), with which
// zstd:chunked layers may begin.
func isSkippable(head []byte) bool {
	return len(head) == 4 && head[0]&0xf0 == 0x50 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18
}

// stream is a layer's uncompressed bytes. Reading the source, decompressing with
// hashing, and the stream's reader work side by side.
type stream struct {
	raw *ahead // as it comes
	out *ahead // decompressed
	sum hash.Hash
}

// openStream starts reading; close stops it. spend is asked before bytes are given.
func openStream(ctx context.Context, src io.Reader, spend func(n int64) error) *stream {
	s := &stream{raw: readAhead(ctx, src.Read), sum: sha256.New()}
	from := &tracked{Reader: s.raw}
	var z io.ReadCloser
	s.out = readAhead(ctx, func(p []byte) (n int, err error) {
		if z == nil {
			if z, err = Decompress(from); err != nil {
				return 0, from.blame(err)
			}
		}
		for n < len(p) && err == nil {
			var m int
			m, err = z.Read(p[n:])
			n += m
		}
		s.sum.Write(p[:n])
		if err != nil {
			z.Close()
		}
		if err != nil && err != io.EOF {
			err = from.blame(err)
		}
		if serr := spend(int64(n)); serr != nil {
			return 0, serr
		}
		return n, err
	})
	return s
}

// Read gives decompressed bytes. After io.EOF sum is of all of them.
func (s *stream) Read(p []byte) (int, error) { return s.out.Read(p) }

func (s *stream) close() {
	s.raw.cancel()
	s.out.cancel()
	s.raw.close()
	s.out.close()
}

// tracked remembers how its source ended, to tell a failing source from bytes
// that do not decompress.
type tracked struct {
	io.Reader
	err error
}

func (t *tracked) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if err != nil {
		t.err = err
	}
	return n, err
}

// blame is the source's error if it had one, else says that the layer is at fault.
func (t *tracked) blame(err error) error {
	if t.err != nil && t.err != io.EOF {
		return t.err
	}
	return fmt.Errorf("%w: %w", ErrInvalid, err)
}
