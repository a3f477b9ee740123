package store

import (
	"context"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// moot are warnings about what a member without listeners does not have, and about a member that is seconds old.
var moot = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"simple token is not cryptographically signed":                                         true,
	"Failed to detect schema version":                                                      true,
	"failed to update storage version":                                                     true,
}

// bridge passes etcd's log lines to slog, one level down: what etcd calls info is debug to a user of keelson, and an
// etcd that cannot go on does not log an error but ends.
type bridge struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func (b bridge) level(l zapcore.Level) slog.Level {
	switch {
	case l > zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.ErrorLevel:
		return slog.LevelWarn
	case l == zapcore.WarnLevel:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

func (b bridge) Enabled(l zapcore.Level) bool {
	return b.log.Enabled(context.Background(), b.level(l))
}

func (b bridge) With(f []zapcore.Field) zapcore.Core {
	return bridge{log: b.log, fields: append(b.fields[:len(b.fields):len(b.fields)], f...)}
}

func (b bridge) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	// Said of every read on a busy machine; the durations are in the metrics.
	if e.Message == "apply request took too long" && !b.log.Enabled(context.Background(), slog.LevelDebug) {
		return ce
	}
	if b.Enabled(e.Level) && !moot[e.Message] {
		return ce.AddCore(e, b)
	}
	return ce
}

func (b bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range b.fields {
		f.AddTo(enc)
	}
	for _, f := range fields {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields))
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	b.log.LogAttrs(context.Background(), b.level(e.Level), e.Message, attrs...)
	return nil
}

func (bridge) Sync() error { return nil }
