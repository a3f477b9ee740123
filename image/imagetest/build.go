package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// Entry is one tar entry; the zero Type is a regular file.
type Entry struct {
	Name   string // as written into the archive
	Type   byte   // tar.TypeReg, TypeDir, TypeSymlink, TypeLink, TypeChar, ...
	Mode   int64  // permission bits; default 0644, directories 0755, links 0777
	UID    int
	GID    int
	Link   string // target of a symbolic or hard link
	Data   []byte
	Major  int64
	Minor  int64
	Xattrs map[string]string
}

// Layer is a layer's entries in order.
type Layer []Entry

// Compression of an image's layers.
type Compression string

// The compressions that registries have.
const (
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
	None Compression = "none"
)

// Spec describes an image. The zero value of a field is its default.
type Spec struct {
	Layers      []Layer
	Config      v1.Config   // what the image says about running it
	Compression Compression // default Gzip
	Docker      bool        // Docker v2 media types instead of OCI's
	OS, Arch    string      // default linux and this machine's
}

// epoch is the time of everything in an image: digests must not change.
var epoch = time.Unix(1700000000, 0).UTC()

// Build makes the image. It fails only for a Spec that cannot be a tar archive.
func Build(s Spec) (v1.Image, error) {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	if s.Docker {
		img = mutate.MediaType(img, types.DockerManifestSchema2)
		img = mutate.ConfigMediaType(img, types.DockerConfigJSON)
	}
	var adds []mutate.Addendum
	for i, l := range s.Layers {
		b, err := Tar(l)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		layer, err := compressed(b, s)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		adds = append(adds, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: epoch}}})
	}
	img, err := mutate.Append(img, adds...)
	if err != nil {
		return nil, err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.Config = s.Config
	cf.Created = v1.Time{Time: epoch}
	cf.OS, cf.Architecture = or(s.OS, "linux"), or(s.Arch, hostArch)
	return mutate.ConfigFile(img, cf)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Must is for specs that are known to be good.
func Must(img v1.Image, err error) v1.Image {
	if err != nil {
		panic(err)
	}
	return img
}

// Tar writes a layer's archive, uncompressed.
func Tar(l Layer) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range l {
		if err := w.WriteHeader(header(e)); err != nil {
			return nil, fmt.Errorf("entry %q: %w", e.Name, err)
		}
		if _, err := w.Write(e.Data); err != nil {
			return nil, fmt.Errorf("entry %q: %w", e.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func header(e Entry) *tar.Header {
	h := &tar.Header{Name: e.Name, Typeflag: e.Type, Mode: e.Mode, Uid: e.UID, Gid: e.GID, Linkname: e.Link,
		Size: int64(len(e.Data)), ModTime: epoch, Devmajor: e.Major, Devminor: e.Minor}
	if h.Typeflag == 0 {
		h.Typeflag = tar.TypeReg
	}
	if h.Mode == 0 {
		h.Mode = map[byte]int64{tar.TypeDir: 0o755, tar.TypeSymlink: 0o777}[h.Typeflag]
		if h.Mode == 0 {
			h.Mode = 0o644
		}
	}
	if len(e.Xattrs) > 0 {
		h.Format = tar.FormatPAX
		h.PAXRecords = map[string]string{}
		for k, v := range e.Xattrs {
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
	}
	return h
}

// compressed wraps an archive as a layer; the compressors write no time or name.
func compressed(b []byte, s Spec) (v1.Layer, error) {
	var out bytes.Buffer
	var w io.WriteCloser
	mt := types.OCIUncompressedLayer
	switch s.Compression {
	case Gzip, "":
		w, mt = gzip.NewWriter(&out), types.OCILayer
		if s.Docker {
			mt = types.DockerLayer
		}
	case Zstd:
		z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		w, mt = z, types.OCILayerZStd
	case None:
		if s.Docker {
			mt = types.DockerUncompressedLayer
		}
		return static.NewLayer(b, mt), nil
	default:
		return nil, fmt.Errorf("unknown compression %q", s.Compression)
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return layer{static.NewLayer(out.Bytes(), mt), b}, nil
}

// layer is a compressed layer that knows its archive.
type layer struct {
	v1.Layer
	plain []byte
}

func (l layer) DiffID() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(l.plain))
	return h, err
}

func (l layer) Uncompressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.plain)), nil
}

// Files makes a layer of regular files by path, with their parent directories
// first, in sorted order. Executables are those below a bin or sbin directory.
func Files(files map[string]string) Layer {
	var l Layer
	seen := map[string]bool{}
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		l = append(l, parents(n, seen)...)
		mode := int64(0o644)
		if d := path.Base(path.Dir(n)); d == "bin" || d == "sbin" {
			mode = 0o755
		}
		l = append(l, Entry{Name: n, Mode: mode, Data: []byte(files[n])})
	}
	return l
}

func parents(name string, seen map[string]bool) Layer {
	var l Layer
	for d := path.Dir(name); d != "." && d != "/" && !seen[d]; d = path.Dir(d) {
		seen[d] = true
		l = append(l, Entry{Name: d + "/", Type: tar.TypeDir})
	}
	slices.Reverse(l)
	return l
}

// HostFiles makes a layer of files of this machine, by their paths, with parent
// directories; symlinks become what they point at.
func HostFiles(paths ...string) (Layer, error) {
	var l Layer
	seen := map[string]bool{}
	paths = slices.Clone(paths)
	slices.Sort(paths)
	for _, p := range slices.Compact(paths) {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		st, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(p, "/")
		l = append(l, parents(name, seen)...)
		l = append(l, Entry{Name: name, Mode: int64(st.Mode().Perm()), Data: b})
	}
	return l, nil
}
