package certificates

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

const maxBundleBytes = 1 << 20

func trustBundle() resource.Kind {
	type bundle = certificatesv1.ClusterTrustBundle
	return resource.Of(resource.Kind{
		Kind: "ClusterTrustBundle", Plural: "clustertrustbundles", ForbidUnconditionalUpdate: true, NoAge: true,
		ValidateName: func(string, bool) []string { return nil }, // validateBundle checks it against the spec
		New:          func() runtime.Object { return &bundle{} },
		NewList:      func() runtime.Object { return &certificatesv1.ClusterTrustBundleList{} },
		Columns: []resource.Column{
			cell.Name(),
			resource.Col("SignerName", "string", certificatesv1.ClusterTrustBundleSpec{}.SwaggerDoc()["signerName"], 0,
				func(b *bundle) any { return orNone(b.Spec.SignerName) }),
		},
	}, resource.Rules[*bundle]{
		Validate: func(_ context.Context, b *bundle) field.ErrorList { return validateBundle(b, true) },
		ValidateUpdate: func(_ context.Context, b, old *bundle) field.ErrorList {
			errs := validateBundle(b, b.Spec.TrustBundle != old.Spec.TrustBundle)
			return append(errs, check.Immutable(b.Spec.SignerName, old.Spec.SignerName, field.NewPath("spec", "signerName"))...)
		},
		Fields: func(b *bundle) fields.Set { return fields.Set{"spec.signerName": b.Spec.SignerName} },
	})
}

func validateBundle(b *certificatesv1.ClusterTrustBundle, anchors bool) field.ErrorList {
	var errs field.ErrorList
	name := field.NewPath("metadata", "name")
	if signer := b.Spec.SignerName; signer != "" {
		errs = append(errs, podspec.ValidateSignerName(signer, field.NewPath("spec", "signerName"))...)
	}
	if b.Name != "" {
		errs = append(errs, check.Strings(podspec.BundleName(b.Name, b.Spec.SignerName), name, b.Name)...)
	}
	if anchors {
		errs = append(errs, validateAnchors(b.Spec.TrustBundle, field.NewPath("spec", "trustBundle"))...)
	}
	return errs
}

func validateAnchors(text string, path *field.Path) field.ErrorList {
	if len(text) > maxBundleBytes {
		return field.ErrorList{field.TooLong(path, "", maxBundleBytes)}
	}
	var errs field.ErrorList
	bad := func(format string, args ...any) {
		errs = append(errs, field.Invalid(path, "<value omitted>", fmt.Sprintf(format, args...)))
	}
	indices := map[string][]int{} // by the certificate's bytes
	rest, n := []byte(text), 0
	for ; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			bad("entry %d has bad block type: %v", n, block.Type)
			continue
		}
		if len(block.Headers) != 0 {
			bad("entry %d has PEM block headers", n)
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			bad("entry %d does not parse as X.509", n)
			continue
		}
		if !cert.IsCA {
			bad("entry %d does not have the CA bit set", n)
			continue
		}
		if !cert.BasicConstraintsValid {
			bad("entry %d has invalid basic constraints", n)
			continue
		}
		indices[string(block.Bytes)] = append(indices[string(block.Bytes)], n)
	}
	if len(errs) > 0 {
		return errs // and not also that anchors are missing
	}
	for _, at := range indices {
		if len(at) > 1 {
			bad("duplicate trust anchor (indices %v)", at)
		}
	}
	if len(indices) == 0 {
		bad("at least one trust anchor must be provided")
	}
	return errs
}
