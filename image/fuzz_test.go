package image_test

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"keelson.dev/keelson/image"
	"keelson.dev/keelson/image/imagetest"
)

// FuzzImport: whatever an archive holds, the import ends with images or an error, and when those are removed nothing is
// stored.
func FuzzImport(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root: layers are unpacked with their owners")
	}
	root := filepath.Join(f.TempDir(), "images")
	s, err := image.Open(image.Config{Root: root, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	const ref = "example.com/a:1"
	tag, err := name.NewTag(ref)
	if err != nil {
		f.Fatal(err)
	}
	img := imagetest.Must(imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{imagetest.Files(map[string]string{"a": "b"})}}))
	var docker, oci bytes.Buffer
	if err := tarball.Write(tag, img, &docker); err != nil {
		f.Fatal(err)
	}
	if _, err := s.Import(f.Context(), bytes.NewReader(docker.Bytes())); err != nil {
		f.Fatal(err)
	}
	if err := s.Export(f.Context(), &oci, ref); err != nil {
		f.Fatal(err)
	}
	f.Add(docker.Bytes())
	f.Add(oci.Bytes())
	f.Add([]byte("no archive"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		found, err := s.Import(t.Context(), bytes.NewReader(archive))
		if err == nil && len(found) == 0 {
			t.Log("an archive of no image")
		}
		for _, i := range s.List() {
			if err := s.Remove(t.Context(), i.ID); err != nil {
				t.Errorf("remove %v: %v", i, err)
			}
		}
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && len(d.Name()) == 64 {
				t.Errorf("%s is left", strings.TrimPrefix(path, root))
			}
			return nil
		})
	})
}

// FuzzResolveUser: who is found is in the image's files or a number that was asked for, and nobody else becomes root.
func FuzzResolveUser(f *testing.F) {
	f.Add("web", "root:x:0:0::/:/bin/sh\nweb:x:33:33::/srv:\n", "web:x:33:\nmore:x:50:web\n")
	f.Add("1000:more", "a:x:1000:7\n", "more:x:50:\n")
	f.Add("0x0", ":::\n#\n", "x:y:-1:a,b,,")
	f.Add("4294967296", "4294967296:x:0:0\n", "")
	root := f.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		for file, text := range map[string]string{"passwd": passwd, "group": group} {
			if err := os.WriteFile(filepath.Join(root, "etc", file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		u, err := image.ResolveUser(root, spec)
		if err != nil {
			return
		}
		who, _, _ := strings.Cut(spec, ":")
		if u.UID > 1<<31-1 || u.GID > 1<<31-1 {
			t.Errorf("%q is %+v", spec, u)
		}
		if u.Name != "" && !strings.Contains(passwd, u.Name+":") {
			t.Errorf("%q is %+v, which the file does not have", spec, u)
		}
		if zero := strings.Trim(who, "0") == ""; u.UID == 0 && !zero && u.Name != who {
			t.Errorf("%q became root: %+v", spec, u)
		}
	})
}
