package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrPlatform is wrapped by errors about an image that has nothing for this machine.
var ErrPlatform = errors.New("no match for platform")

// attestation marks BuildKit's provenance and SBOM entries in an index; they look
// like images for unknown/unknown.
const attestation = "vnd.docker.reference.type"

// Choose picks from an index what runs on want: same OS and architecture, the
// highest variant that is not above want's; among equals the first. Entries that
// are attestations or no images are passed over. A nested index is chosen only
// when no manifest matches, as it says nothing about its platform.
func Choose(ix *v1.Index, want v1.Platform) (v1.Descriptor, error) {
	best, bestRank := -1, -1
	var seen []string
	for i, d := range ix.Manifests {
		rank, name := rankOf(d, want)
		if name != "" {
			seen = append(seen, name)
		}
		if rank > bestRank {
			best, bestRank = i, rank
		}
	}
	if best < 0 {
		slices.Sort(seen)
		return v1.Descriptor{}, fmt.Errorf("%w %s in manifest list: it has %s", ErrPlatform, platformName(&want),
			cmp.Or(strings.Join(slices.Compact(seen), ", "), "no images"))
	}
	return ix.Manifests[best], nil
}

// rankOf is -1 for no match; name describes the platform for an error, "" when
// the entry is no image.
func rankOf(d v1.Descriptor, want v1.Platform) (rank int, name string) {
	if d.Annotations[attestation] != "" {
		return -1, ""
	}
	switch d.MediaType {
	case v1.MediaTypeImageManifest, dockerManifest:
	case v1.MediaTypeImageIndex, dockerList:
		return 0, ""
	default:
		return -1, ""
	}
	if d.Platform == nil {
		return 1, "an image without platform"
	}
	p := d.Platform
	name = platformName(p)
	os, arch, variant := Normalize(p.OS, p.Architecture, p.Variant)
	wos, warch, wvariant := Normalize(want.OS, want.Architecture, want.Variant)
	if os != wos || arch != warch {
		return -1, name
	}
	have, need := variantLevel(variant), variantLevel(wvariant)
	if have > need {
		return -1, name
	}
	return 2 + have, name
}

// Normalize maps the spellings found in images to Go's names and splits variants
// off: x86_64 -> amd64, aarch64 -> arm64 v8, arm -> arm v7.
func Normalize(os, arch, variant string) (string, string, string) {
	os, arch, variant = strings.ToLower(os), strings.ToLower(arch), strings.ToLower(variant)
	switch arch {
	case "x86_64", "x86-64":
		arch = "amd64"
	case "aarch64":
		arch = "arm64"
	case "i386", "i686":
		arch = "386"
	case "armhf":
		arch, variant = "arm", cmp.Or(variant, "v7")
	case "armel":
		arch, variant = "arm", cmp.Or(variant, "v6")
	}
	switch arch {
	case "arm":
		variant = cmp.Or(variant, "v7")
	case "arm64":
		variant = cmp.Or(variant, "v8")
	case "amd64":
		variant = cmp.Or(variant, "v1")
	}
	return os, arch, variant
}

// variantLevel is the number in "v8"; unknown forms are 0 so that they still match.
func variantLevel(v string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(v, "v"))
	if err != nil || n < 0 || n > 99 {
		return 0
	}
	return n
}

func platformName(p *v1.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return fmt.Sprintf("%.60s", s)
}

// CheckPlatform refuses a config for another OS or architecture (an image
// without an index still says what it was built for).
func CheckPlatform(c *v1.Image, want v1.Platform) error {
	os, arch, _ := Normalize(c.OS, c.Architecture, c.Variant)
	wos, warch, _ := Normalize(want.OS, want.Architecture, want.Variant)
	if (os != "" && os != wos) || (arch != "" && arch != warch) {
		return fmt.Errorf("%w %s: the image is for %s", ErrPlatform, platformName(&want), platformName(&c.Platform))
	}
	return nil
}
