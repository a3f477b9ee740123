package podspec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/volumesource"
)

// projection collects what the sources of one projected volume write, to find two that write the same file.
type projection struct {
	volume *field.Path // of the volume's "projected"
	paths  sets.Set[string]
}

func validateProjected(v *corev1.ProjectedVolumeSource, path *field.Path) field.ErrorList {
	errs := validateMode(v.DefaultMode, path.Child("defaultMode"))
	p := projection{volume: path, paths: sets.New[string]()}
	for i := range v.Sources {
		errs = append(errs, p.source(&v.Sources[i], path.Child("sources").Index(i))...)
	}
	return errs
}

func (p projection) source(s *corev1.VolumeProjection, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	count := 0
	take := func(set bool, found func() field.ErrorList) {
		if set {
			count++
			errs = append(errs, found()...)
		}
	}
	take(s.Secret != nil, func() field.ErrorList { return p.keys(s.Secret.Name, s.Secret.Items, path.Child("secret")) })
	take(s.ConfigMap != nil, func() field.ErrorList { return p.keys(s.ConfigMap.Name, s.ConfigMap.Items, path.Child("configMap")) })
	take(s.DownwardAPI != nil, func() (errs field.ErrorList) {
		for i := range s.DownwardAPI.Items {
			f := &s.DownwardAPI.Items[i]
			errs = append(errs, validateDownwardFile(f, path.Child("downwardAPI"))...)
			errs = append(errs, p.write(f.Path, f.Path)...)
		}
		return errs
	})
	take(s.ServiceAccountToken != nil, func() field.ErrorList { return p.token(s.ServiceAccountToken, path.Child("serviceAccountToken")) })
	take(s.ClusterTrustBundle != nil, func() field.ErrorList { return p.bundle(s.ClusterTrustBundle, path.Child("clusterTrustBundle")) })
	take(s.PodCertificate != nil, func() field.ErrorList { return p.certificate(s.PodCertificate, path.Child("podCertificate")) })
	if count > 1 {
		errs = append(errs, field.Forbidden(path, "may not specify more than 1 volume type per source"))
	}
	return errs
}

// write notes a file; value is what an error about it shows.
func (p projection) write(file, value string) field.ErrorList {
	if file == "" {
		return nil
	}
	if p.paths.Has(file) {
		return field.ErrorList{field.Invalid(p.volume, value, "conflicting duplicate paths")}
	}
	p.paths.Insert(file)
	return nil
}

func (p projection) keys(name string, items []corev1.KeyToPath, path *field.Path) field.ErrorList {
	errs := volumesource.Required(path, "name", name)
	for i := range items {
		errs = append(errs, validateKeyToPath(&items[i], path.Child("items").Index(i))...)
		errs = append(errs, p.write(items[i].Path, name)...)
	}
	return errs
}

func (p projection) token(t *corev1.ServiceAccountTokenProjection, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	expiry := path.Child("expirationSeconds")
	switch seconds := t.ExpirationSeconds; {
	case seconds == nil:
		errs = append(errs, field.Required(expiry, ""))
	case *seconds < 10*60:
		errs = append(errs, field.Invalid(expiry, *seconds, "may not specify a duration less than 10 minutes"))
	case *seconds > 1<<32:
		errs = append(errs, field.Invalid(expiry, *seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	at := p.volume.Child("path") // upstream's place
	switch {
	case t.Path == "":
		errs = append(errs, field.Required(at, ""))
	default:
		errs = append(errs, volumesource.File(t.Path, at)...)
	}
	return errs
}

func (p projection) bundle(b *corev1.ClusterTrustBundleProjection, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case b.Name != nil && b.SignerName != nil:
		errs = append(errs, field.Invalid(path, b, "only one of name and signerName may be used"))
	case b.Name != nil:
		if *b.Name == "" {
			errs = append(errs, field.Required(path.Child("name"), "must be a valid object name"))
		}
		for _, msg := range BundleName(*b.Name, signerOf(*b.Name)) {
			errs = append(errs, field.Invalid(path.Child("name"), *b.Name, fmt.Sprintf("not a valid clustertrustbundlename: %v", msg)))
		}
		if b.LabelSelector != nil {
			errs = append(errs, field.Invalid(path.Child("labelSelector"), b.LabelSelector, "labelSelector must be unset if name is specified"))
		}
	case b.SignerName != nil:
		if *b.SignerName == "" {
			errs = append(errs, field.Required(path.Child("signerName"), "must be a valid signer name"))
		}
		errs = append(errs, ValidateSignerName(*b.SignerName, path.Child("signerName"))...)
		errs = append(errs, metav1validation.ValidateLabelSelector(b.LabelSelector, metav1validation.LabelSelectorValidationOptions{}, path.Child("labelSelector"))...)
	default:
		errs = append(errs, field.Required(path, "either name or signerName must be specified"))
	}
	errs = append(errs, volumesource.Required(path, "path", b.Path)...)
	errs = append(errs, volumesource.File(b.Path, path.Child("path"))...)
	return append(errs, p.write(b.Path, b.Path)...)
}

// signerOf tells from a bundle's name whose it is: nobody's has no colon.
func signerOf(bundle string) string {
	return strings.ReplaceAll(bundle[:max(0, strings.LastIndex(bundle, ":"))], ":", "/")
}

// BundleName says what is wrong with the name of a ClusterTrustBundle: it begins with the signer's, in which colons stand
// for slashes.
func BundleName(name, signer string) []string {
	prefix := ""
	if signer != "" {
		prefix = strings.ReplaceAll(signer, "/", ":") + ":"
	}
	rest, ok := strings.CutPrefix(name, prefix)
	switch {
	case !ok:
		return []string{fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", signer, prefix)}
	case signer == "" && strings.Contains(name, ":"):
		return []string{`ClusterTrustBundle without signer name must not have ":" in its name`}
	}
	return apivalidation.NameIsDNSSubdomain(rest, false)
}

// Limits of a pod certificate's life, in seconds: 91 days, or one for Kubernetes' own signers.
const (
	leastCertificate = 3600
	mostCertificate  = 91 * 24 * 60 * 60
	mostOwnSigner    = 24 * 60 * 60
)

func (p projection) certificate(c *corev1.PodCertificateProjection, path *field.Path) field.ErrorList {
	errs := ValidateSignerName(c.SignerName, path.Child("signerName"))
	errs = append(errs, ValidateUserAnnotations(c.UserAnnotations, path.Child("userAnnotations"))...)
	known := []string{"RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"}
	if !slices.Contains(known, c.KeyType) {
		errs = append(errs, field.NotSupported(path.Child("keyType"), c.KeyType, known))
	}
	if seconds := c.MaxExpirationSeconds; seconds != nil {
		at, most := path.Child("maxExpirationSeconds"), int32(mostCertificate)
		if host, _, _ := strings.Cut(c.SignerName, "/"); host == "kubernetes.io" || strings.HasSuffix(host, ".kubernetes.io") {
			most = mostOwnSigner
		}
		if *seconds < leastCertificate {
			errs = append(errs, field.Invalid(at, *seconds, fmt.Sprintf("if provided, maxExpirationSeconds must be >= %d", leastCertificate)))
		}
		if *seconds > most {
			errs = append(errs, field.Invalid(at, *seconds, fmt.Sprintf("if provided, maxExpirationSeconds must be <= %d", most)))
		}
	}
	files := 0
	for _, f := range []struct{ name, path string }{
		{"credentialBundlePath", c.CredentialBundlePath}, {"keyPath", c.KeyPath}, {"certificateChainPath", c.CertificateChainPath},
	} {
		if f.path != "" {
			files++
			errs = append(errs, volumesource.File(f.path, path.Child(f.name))...)
			errs = append(errs, p.write(f.path, f.path)...)
		}
	}
	if files == 0 {
		errs = append(errs, field.Required(path, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"))
	}
	return errs
}

// ValidateUserAnnotations checks what a pod's author tells the signer of its certificate.
func ValidateUserAnnotations(annotations map[string]string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		errs = append(errs, validation.IsDomainPrefixedKey(path, strings.ToLower(key))...)
	}
	if apivalidation.ValidateAnnotationsSize(annotations) != nil {
		errs = append(errs, field.TooLong(path, "", apivalidation.TotalAnnotationSizeLimitB))
	}
	return errs
}

// ValidateSignerName checks the name of a certificate signer: <domain of two labels or more>/<path>.
func ValidateSignerName(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	domain, tail, ok := strings.Cut(name, "/")
	if !ok || strings.Contains(tail, "/") {
		return field.ErrorList{field.Invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")}
	}
	var errs field.ErrorList
	const mostDomain = validation.DNS1123SubdomainMaxLength
	if len(domain) > mostDomain {
		errs = append(errs, field.TooLong(path, "", mostDomain))
	}
	errs = append(errs, signerLabels(domain, validation.IsDNS1123Label, path)...)
	if !strings.Contains(domain, ".") {
		errs = append(errs, field.Invalid(path, domain, "should be a domain with at least two segments separated by dots"))
	}
	errs = append(errs, signerLabels(tail, validation.IsDNS1123Subdomain, path)...)
	const most = mostDomain + 1 + validation.DNS1123SubdomainMaxLength + validation.DNS1123LabelMaxLength + 1
	if len(name) > most {
		errs = append(errs, field.TooLong(path, "", most))
	}
	return errs
}

// signerLabels reports the first label that is none; the others would read the same.
func signerLabels(text string, check func(string) []string, path *field.Path) field.ErrorList {
	for label := range strings.SplitSeq(text, ".") {
		var errs field.ErrorList
		for _, msg := range check(label) {
			errs = append(errs, field.Invalid(path, text, fmt.Sprintf("validating label %q: %s", label, msg)))
		}
		if len(errs) > 0 {
			return errs
		}
	}
	return nil
}
