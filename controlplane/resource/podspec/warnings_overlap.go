package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// file is a path that a volume writes, and who asked for it, for warnings.
type file struct{ path, source string }

func (f file) String() string {
	if f.source == "" {
		return fmt.Sprintf("%q", f.path)
	}
	return fmt.Sprintf("%q (%s)", f.path, f.source)
}

// overlaps are files of one volume of which one is the other, or lies below it: the later one wins, or writing fails.
func (w warner) overlaps() []string {
	var out []string
	warn := func(volume, what string, files []file) {
		for i, f := range files {
			for _, earlier := range files[:i] {
				if collide(earlier, f) {
					out = append(out, fmt.Sprintf("volume %q (%s): overlapping paths: %s with %s", volume, what, f, earlier))
				}
			}
		}
	}
	for i := range w.spec.Volumes {
		v := &w.spec.Volumes[i]
		switch {
		case v.ConfigMap != nil:
			warn(v.Name, fmt.Sprintf("ConfigMap %q", v.ConfigMap.Name), keyFiles(v.ConfigMap.Items, ""))
		case v.Secret != nil:
			warn(v.Name, fmt.Sprintf("Secret %q", v.Secret.SecretName), keyFiles(v.Secret.Items, ""))
		case v.DownwardAPI != nil:
			warn(v.Name, "DownwardAPI", downwardFiles(v.DownwardAPI.Items, ""))
		case v.Projected != nil:
			var files []file
			for j := range v.Projected.Sources {
				s := &v.Projected.Sources[j]
				if *s == (corev1.VolumeProjection{}) {
					out = append(out, fmt.Sprintf("volume %q (Projected) has no sources provided", v.Name))
				}
				files = append(files, projectedFiles(s)...)
			}
			warn(v.Name, "Projected", files)
		}
	}
	return out
}

func projectedFiles(s *corev1.VolumeProjection) []file {
	switch {
	case s.ConfigMap != nil:
		return keyFiles(s.ConfigMap.Items, fmt.Sprintf("ConfigMap %q", s.ConfigMap.Name))
	case s.Secret != nil:
		return keyFiles(s.Secret.Items, fmt.Sprintf("Secret %q", s.Secret.Name))
	case s.DownwardAPI != nil:
		return downwardFiles(s.DownwardAPI.Items, "DownwardAPI")
	case s.ServiceAccountToken != nil:
		return []file{newFile(s.ServiceAccountToken.Path, "ServiceAccountToken")}
	case s.ClusterTrustBundle != nil:
		name := ""
		if b := s.ClusterTrustBundle; b.Name != nil {
			name = *b.Name
		} else if b.SignerName != nil {
			name = *b.SignerName
		}
		return []file{newFile(s.ClusterTrustBundle.Path, fmt.Sprintf("ClusterTrustBundle %q", name))}
	case s.PodCertificate != nil:
		return []file{
			newFile(s.PodCertificate.CertificateChainPath, "PodCertificate chain"),
			newFile(s.PodCertificate.KeyPath, "PodCertificate key"),
			newFile(s.PodCertificate.CredentialBundlePath, "PodCertificate credential bundle"),
		}
	}
	return nil
}

func newFile(path, source string) file { return file{strings.TrimRight(path, "/"), source} }

func keyFiles(items []corev1.KeyToPath, source string) []file {
	var out []file
	for _, item := range items {
		out = append(out, newFile(item.Path, source))
	}
	return out
}

func downwardFiles(items []corev1.DownwardAPIVolumeFile, source string) []file {
	var out []file
	for _, item := range items {
		out = append(out, newFile(item.Path, source))
	}
	return out
}

func collide(a, b file) bool {
	if a.path == "" || b.path == "" {
		return false
	}
	return strings.HasPrefix(a.path+"/", b.path+"/") || strings.HasPrefix(b.path+"/", a.path+"/")
}
