package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Report says what a layer turned out to be.
type Report struct {
	DiffID digest.Digest // sha256 of the uncompressed stream
	Bytes  uint64        // disk blocks of files and directories, in bytes
	Inodes uint64

	implied []string // directories that the layer uses without having an entry for them
	links   []link   // hard links to files of lower layers, in order
}

type link struct{ name, target string }

// Layer reads a compressed (gzip, zstd) or plain tar stream to its end and lays
// it out below dir. A source error is returned as it is; other errors wrap
// ErrInvalid or ErrLimit, or are the filesystem's.
func Layer(ctx context.Context, src io.Reader, dir *os.File, b *Budget) (Report, error) {
	root := int(dir.Fd())
	s := openStream(ctx, src, func(n int64) error { return b.spend(root, n) })
	defer s.close()
	w := newWriter(ctx, root, b)
	defer w.close()
	if err := w.all(tar.NewReader(s)); err != nil {
		return Report{}, err
	}
	// What follows the archive's end marker belongs to the DiffID.
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, w.buf); err != nil {
		return Report{}, err
	}
	if err := w.finish(); err != nil {
		return Report{}, err
	}
	rep := w.rep
	rep.DiffID = digest.NewDigest(digest.SHA256, s.sum) // settled: Read has seen EOF
	for p := range w.implied {
		rep.implied = append(rep.implied, p)
	}
	return rep, nil
}

func (w *writer) all(tr *tar.Reader) error {
	for {
		if err := w.ctx.Err(); err != nil {
			return context.Cause(w.ctx)
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || err == io.ErrUnexpectedEOF {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if err != nil {
			return err
		}
		if err := w.entry(hdr, tr); err == io.ErrUnexpectedEOF { // tar's own: a source's error is never bare
			return fmt.Errorf("%w: layer entry %.120q: the archive ends in it", ErrInvalid, hdr.Name)
		} else if err != nil {
			return fmt.Errorf("layer entry %.120q: %w", hdr.Name, err)
		}
	}
}

// entry lays out one tar entry.
func (w *writer) entry(hdr *tar.Header, r io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if err := w.budget.entry(); err != nil {
		return err
	}
	name, err := w.cleanName(hdr.Name)
	if err != nil {
		return err
	}
	if hdr.Uid < 0 || hdr.Gid < 0 || int64(hdr.Uid) > maxID || int64(hdr.Gid) > maxID {
		return fmt.Errorf("%w: owner %d:%d", ErrInvalid, hdr.Uid, hdr.Gid)
	}
	if name == "" {
		return w.rootEntry(hdr)
	}
	parent, base := path.Split(name)
	parent = strings.TrimSuffix(parent, "/")
	dirfd, err := w.dir(parent)
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return w.whiteout(dirfd, base)
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		return w.mkdir(dirfd, name, base, hdr)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return w.file(dirfd, base, hdr, r)
	case tar.TypeLink:
		return w.link(dirfd, name, base, hdr.Linkname)
	case tar.TypeSymlink:
		return w.symlink(dirfd, base, hdr)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return w.node(dirfd, base, hdr)
	}
	return fmt.Errorf("%w: unknown type %q", ErrInvalid, hdr.Typeflag)
}

const (
	maxID   = 1<<32 - 2 // the last id is "no id" to chown
	maxName = 255       // NAME_MAX
	maxPath = 4095      // PATH_MAX without the NUL
)

// cleanName makes a name relative to the root and lexically inside it; "" is the root.
func (w *writer) cleanName(name string) (string, error) {
	if len(name) > maxPath || strings.IndexByte(name, 0) >= 0 {
		return "", fmt.Errorf("%w: name of %d bytes, or with a NUL", ErrInvalid, len(name))
	}
	name = path.Clean("/" + name)[1:]
	if strings.Count(name, "/") > w.budget.lim.Depth {
		return "", fmt.Errorf("%w: more than %d directories deep", ErrLimit, w.budget.lim.Depth)
	}
	for c := range strings.SplitSeq(name, "/") {
		if len(c) > maxName {
			return "", fmt.Errorf("%w: name component of %d bytes", ErrInvalid, len(c))
		}
	}
	return name, nil
}

// rootEntry is "./": the metadata of the root directory itself.
func (w *writer) rootEntry(hdr *tar.Header) error {
	if hdr.Typeflag != tar.TypeDir {
		return fmt.Errorf("%w: the root is not a directory", ErrInvalid)
	}
	delete(w.implied, "")
	w.dirTimes = append(w.dirTimes, dirTime{"", hdr.ModTime})
	return w.metadata(w.root, hdr)
}

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	opaqueXattr    = "trusted.overlay.opaque"
)

// whiteout turns OCI's marker files into overlayfs's form. Markers act on lower
// layers alone: what this layer itself has under the name stays.
func (w *writer) whiteout(dirfd int, base string) error {
	if base == opaqueMarker {
		return setOpaque(dirfd)
	}
	if strings.HasPrefix(base, ".wh..wh.") {
		return nil // aufs's own bookkeeping
	}
	name := base[len(whiteoutPrefix):]
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("%w: whiteout of %q", ErrInvalid, name)
	}
	var st unix.Stat_t
	err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == unix.ENOENT:
		if err := unix.Mknodat(dirfd, name, unix.S_IFCHR, 0); err != nil {
			return fmt.Errorf("mknod whiteout: %w", err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("stat: %w", err)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		fd, err := openDir(dirfd, name)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return setOpaque(fd)
	}
	return nil
}

func setOpaque(fd int) error {
	if err := unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("set %s: %w", opaqueXattr, err)
	}
	return nil
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}
