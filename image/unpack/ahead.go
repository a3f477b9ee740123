package unpack

import (
	"context"
	"fmt"
	"sync"
)

const (
	blockSize   = 256 << 10
	blocksAhead = 4
)

var blocks = sync.Pool{New: func() any { b := make([]byte, blockSize); return &b }}

// ahead runs a producer of bytes in a goroutine of its own, a few blocks ahead of
// its one reader.
type ahead struct {
	full   chan []byte
	free   chan []byte
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended; then err is settled
	err    error         // io.EOF at a good end

	block []byte // not yet given
	whole []byte // the buffer that block is a part of
}

// readAhead calls next again and again, with a buffer to fill, until it fails
// (io.EOF: it is done). close stops it and waits.
func readAhead(ctx context.Context, next func(p []byte) (int, error)) *ahead {
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{full: make(chan []byte, blocksAhead), free: make(chan []byte, blocksAhead+2), cancel: cancel, done: make(chan struct{})}
	go a.run(ctx, next) // stopped and waited for by close
	return a
}

func (a *ahead) run(ctx context.Context, next func(p []byte) (int, error)) {
	defer close(a.done)
	defer close(a.full)
	// Hostile bytes that find a fault in a decompressor must cost one pull, not the
	// process that looks after all containers.
	defer func() {
		if p := recover(); p != nil {
			a.err = fmt.Errorf("%w: decompressor failed: %v", ErrInvalid, p)
		}
	}()
	for a.err == nil {
		buf := a.buffer()
		n, err := next(buf)
		a.err = err
		if n == 0 {
			a.recycle(buf)
			continue
		}
		select {
		case a.full <- buf[:n]:
		case <-ctx.Done():
			a.err = context.Cause(ctx)
		}
	}
}

func (a *ahead) buffer() []byte {
	select {
	case b := <-a.free:
		return b
	default:
		return *blocks.Get().(*[]byte)
	}
}

func (a *ahead) recycle(b []byte) {
	b = b[:blockSize]
	select {
	case a.free <- b:
	default:
		blocks.Put(&b)
	}
}

// Read gives what was produced; the error is the producer's.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.block) == 0 {
		if a.whole != nil {
			a.recycle(a.whole)
			a.whole = nil
		}
		b, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.block, a.whole = b, b
	}
	n := copy(p, a.block)
	a.block = a.block[n:]
	return n, nil
}

// close stops the producer, waits until its last call of next returns, and gives
// the buffers back.
func (a *ahead) close() {
	a.cancel()
	for b := range a.full {
		a.recycle(b)
	}
	<-a.done
	for len(a.free) > 0 {
		b := <-a.free
		blocks.Put(&b)
	}
}
