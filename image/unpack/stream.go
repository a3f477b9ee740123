package unpack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	blockSize   = 256 << 10
	blocksAhead = 8
	zstdWindow  = 128 << 20 // bytes; zstd --long=27, the most that decoders take unasked
)

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
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return z, nil
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

// stream decompresses and hashes in a goroutine of its own, a few blocks ahead
// of the reader.
type stream struct {
	full   chan []byte
	free   chan []byte
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended; then err and sum are settled
	err    error         // io.EOF after a whole stream
	sum    hash.Hash

	block []byte // not yet given
	whole []byte // the buffer that block is a part of
}

var blocks = sync.Pool{New: func() any { b := make([]byte, blockSize); return &b }}

// openStream starts the goroutine; close stops it and waits.
func openStream(ctx context.Context, src io.Reader, spend func(n int64) error) *stream {
	ctx, cancel := context.WithCancel(ctx)
	s := &stream{full: make(chan []byte, blocksAhead), free: make(chan []byte, blocksAhead+2),
		cancel: cancel, done: make(chan struct{}), sum: sha256.New()}
	go s.run(ctx, src, spend)
	return s
}

func (s *stream) run(ctx context.Context, src io.Reader, spend func(n int64) error) {
	defer close(s.done)
	defer close(s.full)
	from := &tracked{Reader: src}
	z, err := Decompress(from)
	if err != nil {
		s.err = from.blame(err)
		return
	}
	defer z.Close()
	for {
		buf := s.buffer()
		n, err := io.ReadFull(z, buf)
		if n > 0 {
			s.sum.Write(buf[:n])
			if serr := spend(int64(n)); serr != nil {
				s.err = serr
				return
			}
			select {
			case s.full <- buf[:n]:
			case <-ctx.Done():
				s.err = context.Cause(ctx)
				return
			}
		}
		if err == io.ErrUnexpectedEOF && n < len(buf) && streamEnded(z) {
			err = io.EOF
		}
		if err == io.EOF {
			s.err = err
			return
		}
		if err != nil {
			s.err = from.blame(err)
			return
		}
	}
}

// streamEnded tells a short last block (ReadFull's ErrUnexpectedEOF) from a
// compressed stream that was cut: the latter gives its error again.
func streamEnded(z io.Reader) bool {
	var one [1]byte
	n, err := z.Read(one[:])
	return n == 0 && err == io.EOF
}

func (s *stream) buffer() []byte {
	select {
	case b := <-s.free:
		return b[:blockSize]
	default:
		return *blocks.Get().(*[]byte)
	}
}

// Read gives decompressed bytes; the error is the stream's own.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.block) == 0 {
		if s.whole != nil {
			select {
			case s.free <- s.whole:
			default:
			}
			s.whole = nil
		}
		b, ok := <-s.full
		if !ok {
			return 0, s.err
		}
		s.block, s.whole = b, b[:0]
	}
	n := copy(p, s.block)
	s.block = s.block[n:]
	return n, nil
}

// close stops the goroutine, waits for it, and gives its buffers back.
func (s *stream) close() {
	s.cancel()
	for b := range s.full {
		b = b[:blockSize]
		blocks.Put(&b)
	}
	<-s.done
	for {
		select {
		case b := <-s.free:
			b = b[:blockSize]
			blocks.Put(&b)
			continue
		default:
		}
		return
	}
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
