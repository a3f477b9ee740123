package cri

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/cri/stream"
	"keelson.dev/keelson/cri/translate"
	"keelson.dev/keelson/image"
	"keelson.dev/keelson/runtime/container"
	"keelson.dev/keelson/runtime/sandbox"
)

// errInvalid marks a request that can never succeed as it is; errTooBig one that
// exceeds a limit; errState one that does not fit the object's state; errTaken a
// name in use by another object; errUnimplemented what this runtime does not do.
var (
	errInvalid       = translate.ErrInvalid
	errTooBig        = errors.New("over the limit")
	errState         = errors.New("wrong state")
	errTaken         = errors.New("name is taken")
	errUnimplemented = errors.New("not implemented")
)

// wire is the table of which error becomes which code. The first that fits wins,
// so that a cause is preferred to its consequence.
var wire = []struct {
	err  error
	code codes.Code
}{
	{errUnimplemented, codes.Unimplemented},
	{errInvalid, codes.InvalidArgument},
	{errTooBig, codes.ResourceExhausted},
	{stream.ErrTooMany, codes.ResourceExhausted},
	{errTaken, codes.AlreadyExists},
	{errState, codes.FailedPrecondition},
	{podstore.ErrNotFound, codes.NotFound},
	{image.ErrNotFound, codes.NotFound},
	{image.ErrInvalidReference, codes.InvalidArgument},
	{image.ErrLimit, codes.ResourceExhausted},
	{container.ErrNotFound, codes.NotFound},
	{sandbox.ErrNotFound, codes.NotFound},
	{container.ErrExists, codes.AlreadyExists},
	{container.ErrNotRunning, codes.FailedPrecondition},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
}

// toStatus gives err its gRPC code and keeps its text. An error that has a code
// already keeps it.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	for _, w := range wire {
		if errors.Is(err, w.err) {
			return status.Error(w.code, err.Error())
		}
	}
	return status.Error(codes.Unknown, err.Error())
}

// missing tells that the object of an idempotent call is gone already.
func missing(err error) bool {
	for _, e := range []error{podstore.ErrNotFound, image.ErrNotFound, container.ErrNotFound, sandbox.ErrNotFound} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
