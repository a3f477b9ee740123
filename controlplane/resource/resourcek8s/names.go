package resourcek8s

import (
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/volumesource"
)

// validateDeclaredDriver is volumesource.CSIDriver in the words that upstream has where the rule stands with the type.
func validateDeclaredDriver(name string, path *field.Path) field.ErrorList {
	errs := required(&name, path, validate.LongNameCaseless)
	if len(name) > resourcev1.DriverNameMaxLength {
		errs = append(errs, field.TooLongCharacters(path, name, resourcev1.DriverNameMaxLength))
	}
	return errs
}

func validateLabel(name string, path *field.Path) field.ErrorList {
	return check.Strings(validation.IsDNS1123Label(name), path, name)
}

// validatePool checks a pool's name: DNS subdomains with slashes between them.
func validatePool(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > resourcev1.PoolNameMaxLength {
		errs = append(errs, field.TooLong(path, name, resourcev1.PoolNameMaxLength))
	}
	for part := range strings.SplitSeq(name, "/") {
		errs = append(errs, check.Strings(validation.IsDNS1123Subdomain(part), path, part)...)
	}
	return errs
}

// validateName checks an attribute's or capacity's name, whose domain may be left out.
func validateName(name string, path *field.Path) field.ErrorList {
	switch parts := strings.Split(name, "/"); len(parts) {
	case 1:
		return validateID(name, path)
	case 2:
		errs := validateDomain(parts[0], path)
		if parts[1] == "" {
			return append(errs, field.Invalid(path, "", "the name must not be empty"))
		}
		return append(errs, validateID(parts[1], path)...)
	}
	return nil // which upstream lets through
}

func validateDomain(domain string, path *field.Path) field.ErrorList {
	if domain == "" {
		return field.ErrorList{field.Invalid(path, "", "the domain must not be empty")}
	}
	return volumesource.CSIDriver(domain, path)
}

func validateID(id string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(id) > resourcev1.DeviceMaxIDLength {
		errs = append(errs, field.TooLong(path, id, resourcev1.DeviceMaxIDLength))
	}
	return append(errs, check.Strings(content.IsCIdentifier(id), path, id)...)
}
