package unpack

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrLimit is wrapped by errors about a layer that is larger than allowed;
// ErrInvalid by those about a malformed or hostile one.
var (
	ErrLimit   = errors.New("image exceeds a limit")
	ErrInvalid = errors.New("invalid layer")
)

// Limits of one image, all its layers together. Zero is the default.
type Limits struct {
	Bytes    int64 // uncompressed; default 64 GiB
	Entries  int64 // files, directories, links, whiteouts; default 4 Mi
	Depth    int   // directories above a file; default 512
	KeepFree int64 // bytes of the filesystem left to others; default 5 % of it, at most 10 GiB
}

// Budget counts what an image has used of its Limits. Safe for concurrent use by
// the image's layers.
type Budget struct {
	lim            Limits
	bytes, entries atomic.Int64
	nextCheck      atomic.Int64 // bytes at which free space is looked at again
}

const freeCheckEvery = 64 << 20 // bytes

// NewBudget begins an image's account.
func NewBudget(l Limits) *Budget {
	if l.Bytes <= 0 {
		l.Bytes = 64 << 30
	}
	if l.Entries <= 0 {
		l.Entries = 4 << 20
	}
	if l.Depth <= 0 {
		l.Depth = 512
	}
	return &Budget{lim: l}
}

func (b *Budget) entry() error {
	if b.entries.Add(1) > b.lim.Entries {
		return fmt.Errorf("%w: more than %d files", ErrLimit, b.lim.Entries)
	}
	return nil
}

// spend accounts for n bytes on the filesystem of dirfd.
func (b *Budget) spend(dirfd int, n int64) error {
	total := b.bytes.Add(n)
	if n < 0 || total < 0 || total > b.lim.Bytes {
		return fmt.Errorf("%w: more than %d bytes uncompressed", ErrLimit, b.lim.Bytes)
	}
	if next := b.nextCheck.Load(); total < next || !b.nextCheck.CompareAndSwap(next, total+freeCheckEvery) {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(dirfd, &fs); err != nil {
		return fmt.Errorf("statfs image store: %w", err)
	}
	size := uint64(fs.Bsize)
	keep := uint64(b.lim.KeepFree)
	if keep == 0 {
		keep = min(fs.Blocks*size/20, 10<<30)
	}
	if free := fs.Bavail * size; free < keep {
		return fmt.Errorf("%w: the image store's filesystem has %d bytes free, %d must stay so: %w", ErrLimit, free, keep, unix.ENOSPC)
	}
	return nil
}
