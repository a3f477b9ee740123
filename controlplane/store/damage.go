package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// ErrDamaged is returned (wrapped, with what is wrong and the way out) when the files of the database cannot be used.
var ErrDamaged = errors.New("the database is damaged")

// lockLimit is how long another holder of the file is waited for; there should be none.
const lockLimit = 5 * time.Second

// wayOut is what to do about it. Nothing is repaired by guessing: what a guess loses, nobody sees.
const wayOut = "nothing was changed. `keelson snapshot ls` lists the snapshots, `keelson snapshot restore FILE` brings one back and keeps the damaged files aside; " +
	"if the disk is failing, replace it first"

// ending decides what happens when etcd says that it cannot go on: while it opens, that is the error of Open; later the process
// ends at once, loudly. A write whose sync failed must never be acknowledged, nor tried again: the kernel may have dropped the
// pages and would call the second sync a success.
type ending struct {
	log     *slog.Logger
	opening atomic.Bool
}

// fatal is what stops the opening goroutine.
type fatal struct{ message string }

// OnWrite implements zapcore.CheckWriteHook: etcd has logged a fatal line.
func (e *ending) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	message := entry.Message
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			message += ": " + err.Error()
		}
	}
	if e.opening.Load() {
		panic(fatal{message})
	}
	e.log.Error("the database cannot go on; this process ends, so that nothing is acknowledged that may not be on disk. Pods are not touched", "cause", message)
	os.Exit(1)
}

// opened turns what etcd panicked with while it opened into an error.
func opened(dir string, p any) error {
	text := fmt.Sprint(p)
	if f, ok := p.(fatal); ok {
		text = f.message
	}
	return fmt.Errorf("%w: %s: %s. %s", ErrDamaged, dir, text, wayOut)
}

func (e *ending) logger(log *slog.Logger) *zap.Logger {
	return zap.New(bridge{log: log}, zap.WithFatalHook(e))
}

// complete tells whether a database file has all the pages that it says it has, and pages where it says pages are.
func complete(path string) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: lockLimit})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		if tx.Size() > st.Size() {
			return fmt.Errorf("%s has %d bytes, %d are missing", path, st.Size(), tx.Size()-st.Size())
		}
		// The library walks the pages in a goroutine of its own when it opens the file to write: a bad page would end the process there.
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return b.ForEach(func(_, _ []byte) error { return nil }) })
	})
}

// startError is what etcd returned when it did not start: damage, or something that restoring would not help against.
func startError(dir string, err error) error {
	for _, bad := range []error{walpb.ErrCRCMismatch, wal.ErrCRCMismatch, wal.ErrMetadataConflict, wal.ErrSliceOutOfRange, wal.ErrSnapshotMismatch, io.ErrUnexpectedEOF} {
		if errors.Is(err, bad) {
			return opened(dir, err)
		}
	}
	return fmt.Errorf("start store in %s: %w", dir, err)
}
