package manifest

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

const hex = "9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf"

func index(ps ...string) *v1.Index {
	ix := &v1.Index{}
	for _, p := range ps {
		var pl v1.Platform
		json.Unmarshal([]byte(p), &pl)
		d := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Platform: &pl, ArtifactType: p}
		if p == "" {
			d.Platform = nil
		}
		if pl.OSVersion == "attestation" {
			d.Annotations = map[string]string{attestation: "attestation-manifest"}
		}
		if pl.OSVersion == "nested" {
			d.MediaType, d.Platform = v1.MediaTypeImageIndex, nil
		}
		if pl.OSVersion == "signature" {
			d.MediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
		}
		ix.Manifests = append(ix.Manifests, d)
	}
	return ix
}

func TestChoose(t *testing.T) {
	amd := `{"os":"linux","architecture":"amd64"}`
	amd2, amd3 := `{"os":"linux","architecture":"amd64","variant":"v2"}`, `{"os":"linux","architecture":"amd64","variant":"v3"}`
	arm6, arm7, arm64 := `{"os":"linux","architecture":"arm","variant":"v6"}`, `{"os":"linux","architecture":"arm","variant":"v7"}`, `{"os":"linux","architecture":"arm64","variant":"v8"}`
	plain64 := `{"os":"linux","architecture":"arm64"}`
	att := `{"os":"linux","architecture":"amd64","os.version":"attestation"}`
	unknown := `{"os":"unknown","architecture":"unknown"}`
	nested, sig := `{"os.version":"nested"}`, `{"os":"linux","architecture":"amd64","os.version":"signature"}`
	for _, c := range []struct {
		name string
		ix   *v1.Index
		want v1.Platform
		get  string
	}{
		{"exact", index(arm64, amd), v1.Platform{OS: "linux", Architecture: "amd64"}, amd},
		{"attestation first", index(att, unknown, amd), v1.Platform{OS: "linux", Architecture: "amd64"}, amd},
		{"signature first", index(sig, amd), v1.Platform{OS: "linux", Architecture: "amd64"}, amd},
		{"first of equals", index(amd, `{"os":"linux","architecture":"x86_64"}`), v1.Platform{OS: "linux", Architecture: "amd64"}, amd},
		{"best variant", index(amd, amd2, amd3), v1.Platform{OS: "linux", Architecture: "amd64", Variant: "v2"}, amd2},
		{"no variant above", index(amd3, amd), v1.Platform{OS: "linux", Architecture: "amd64"}, amd},
		{"arm v6 on v7", index(arm6), v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, arm6},
		{"arm v7 over v6", index(arm6, arm7), v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, arm7},
		{"arm v7 not on v6", index(arm7, arm64), v1.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}, ""},
		{"arm64 v8 is arm64", index(plain64), v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, plain64},
		{"no platform", index("", unknown), v1.Platform{OS: "linux", Architecture: "amd64"}, ""},
		{"nested only", index(arm64, nested), v1.Platform{OS: "linux", Architecture: "amd64"}, nested},
		{"match over nested", index(nested, amd), v1.Platform{OS: "linux", Architecture: "amd64"}, amd},
		{"none", index(arm64, att), v1.Platform{OS: "linux", Architecture: "amd64"}, "!"},
		{"other os", index(`{"os":"windows","architecture":"amd64"}`), v1.Platform{OS: "linux", Architecture: "amd64"}, "!"},
		{"empty", index(), v1.Platform{OS: "linux", Architecture: "amd64"}, "!"},
	} {
		d, err := Choose(c.ix, c.want)
		switch {
		case c.get == "!" || c.name == "arm v7 not on v6":
			if !errors.Is(err, ErrPlatform) {
				t.Errorf("%s: %v, %v; want ErrPlatform", c.name, d.ArtifactType, err)
			}
		case err != nil || d.ArtifactType != c.get:
			t.Errorf("%s: chose %q, %v; want %q", c.name, d.ArtifactType, err, c.get)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(v1.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:`+hex+`","size":2},"layers":[]}`))
	f.Add(v1.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[{"mediaType":"`+v1.MediaTypeImageManifest+`","digest":"sha256:`+hex+`","size":2}]}`))
	f.Add(dockerManifest, []byte(`{"schemaVersion":2,"mediaType":"`+dockerManifest+`"}`))
	f.Fuzz(func(t *testing.T, mediaType string, b []byte) {
		doc, err := Parse(mediaType, b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		if (doc.Index == nil) == (doc.Manifest == nil) {
			t.Fatal("want exactly one of index and manifest")
		}
		if doc.Index != nil {
			Choose(doc.Index, v1.Platform{OS: "linux", Architecture: "amd64"})
			return
		}
		for _, l := range append(doc.Manifest.Layers, doc.Manifest.Config) {
			if l.Digest.Validate() != nil || l.Size < 0 {
				t.Fatalf("descriptor %+v", l)
			}
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:` + hex + `"]},"config":{"Env":["A=b"],"User":"x"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b, 1)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		if len(ChainIDs(c.RootFS.DiffIDs)) != 1 {
			t.Fatal("chain ids")
		}
	})
}
