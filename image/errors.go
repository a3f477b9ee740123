package image

import (
	"errors"

	"keelson.dev/keelson/image/content"
	"keelson.dev/keelson/image/manifest"
	"keelson.dev/keelson/image/reference"
	"keelson.dev/keelson/image/registry"
	"keelson.dev/keelson/image/snapshot"
	"keelson.dev/keelson/image/unpack"
)

// Kinds of failure, for errors.Is. ErrNotFound is of Get and of a pull alike: no
// such image here, or none in the registry.
var (
	ErrNotFound         = registry.ErrNotFound
	ErrUnauthorized     = registry.ErrUnauthorized
	ErrUnreachable      = registry.ErrUnreachable
	ErrInvalidReference = reference.ErrInvalid
	ErrInvalidImage     = manifest.ErrInvalid // malformed documents; see also ErrInvalidLayer
	ErrInvalidLayer     = unpack.ErrInvalid
	ErrLimit            = unpack.ErrLimit
	ErrPlatform         = manifest.ErrPlatform
	ErrUnsupported      = manifest.ErrUnsupported
	ErrCorrupt          = content.ErrCorrupt // bytes and digest differ
	ErrNotMounted       = snapshot.ErrNotMounted
	ErrLocked           = errors.New("image store is in use by another process")
	ErrClosed           = errors.New("image store is closed")
)
