package discovery

import (
	discoveryv1 "k8s.io/api/discovery/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"keelson.dev/keelson/controlplane/resource/check"
)

// The limits of one slice, which keep a change of one endpoint small on the wire.
const (
	maxTopologyLabels = 16
	maxAddresses      = 100
	maxPorts          = 20000
	maxEndpoints      = 1000
	maxHints          = 8
)

func validate(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	var errs field.ErrorList
	if s.AddressType == "" {
		errs = append(errs, field.Required(field.NewPath("addressType"), ""))
	} else {
		errs = append(errs, check.OneOf(s.AddressType, field.NewPath("addressType"),
			discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)...)
	}
	errs = append(errs, validatePorts(s.Ports, field.NewPath("ports"))...)
	// Endpoints that an update leaves alone may have been accepted by an older, less strict rule.
	if old == nil || !check.Same(s.Endpoints, old.Endpoints) {
		errs = append(errs, validateEndpoints(s.Endpoints, s.AddressType, field.NewPath("endpoints"))...)
	}
	return errs
}

func validateEndpoints(endpoints []discoveryv1.Endpoint, family discoveryv1.AddressType, path *field.Path) field.ErrorList {
	if n := len(endpoints); n > maxEndpoints {
		return field.ErrorList{field.TooMany(path, n, maxEndpoints)}
	}
	var errs field.ErrorList
	for i := range endpoints {
		errs = append(errs, validateEndpoint(&endpoints[i], family, path.Index(i))...)
	}
	return errs
}

func validateEndpoint(e *discoveryv1.Endpoint, family discoveryv1.AddressType, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	addresses := path.Child("addresses")
	switch n := len(e.Addresses); {
	case n == 0:
		errs = append(errs, field.Required(addresses, ""))
	case n > maxAddresses:
		errs = append(errs, field.TooMany(addresses, n, maxAddresses))
	}
	for i, a := range e.Addresses {
		errs = append(errs, validateAddress(a, family, addresses, i)...)
	}
	if e.NodeName != nil {
		errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(*e.NodeName, false), path.Child("nodeName"), *e.NodeName)...)
	}
	topology := path.Child("deprecatedTopology")
	if n := len(e.DeprecatedTopology); n > maxTopologyLabels {
		errs = append(errs, field.TooMany(topology, n, maxTopologyLabels))
	}
	errs = append(errs, metavalidation.ValidateLabels(e.DeprecatedTopology, topology)...)
	if e.Hostname != nil {
		errs = append(errs, check.Strings(validation.IsDNS1123Label(*e.Hostname), path.Child("hostname"), *e.Hostname)...)
	}
	if e.Hints != nil {
		errs = append(errs, validateHints(e.Hints, path.Child("hints"))...)
	}
	return errs
}

// validateAddress checks the address at index i of the list at addresses.
func validateAddress(a string, family discoveryv1.AddressType, addresses *field.Path, i int) field.ErrorList {
	at := addresses.Index(i)
	var errs field.ErrorList
	switch family {
	case discoveryv1.AddressTypeIPv4:
		errs = validation.IsValidIPForLegacyField(at, a, true, nil)
	case discoveryv1.AddressTypeIPv6:
		errs = validation.IsValidIP(at, a)
	case discoveryv1.AddressTypeFQDN:
		return validation.IsFullyQualifiedDomainName(at, a)
	default:
		return nil
	}
	if len(errs) > 0 {
		return errs
	}
	if want4 := family == discoveryv1.AddressTypeIPv4; netutils.IsIPv4String(a) != want4 {
		errs = append(errs, field.Invalid(addresses, a, "must be an "+string(family)+" address"))
	}
	return append(errs, validateRoutable(a, at)...)
}

// validateRoutable refuses addresses that mean the node itself, so that a slice cannot be used to reach
// services which listen on the node's loopback (CVE-2020-8558's neighbourhood) or the link's metadata server.
func validateRoutable(a string, path *field.Path) field.ErrorList {
	ip := netutils.ParseIPSloppy(a)
	var errs field.ErrorList
	if ip.IsUnspecified() {
		errs = append(errs, field.Invalid(path, a, "may not be unspecified ("+a+")"))
	}
	if ip.IsLoopback() {
		errs = append(errs, field.Invalid(path, a, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
	}
	if ip.IsLinkLocalUnicast() {
		errs = append(errs, field.Invalid(path, a, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
	}
	if ip.IsLinkLocalMulticast() {
		errs = append(errs, field.Invalid(path, a, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"))
	}
	return errs
}

func validatePorts(ports []discoveryv1.EndpointPort, path *field.Path) field.ErrorList {
	if n := len(ports); n > maxPorts {
		return field.ErrorList{field.TooMany(path, n, maxPorts)}
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, p := range ports {
		at := path.Index(i)
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		if name != "" {
			errs = append(errs, check.Strings(validation.IsDNS1123Label(name), at.Child("name"), name)...)
		}
		if seen[name] {
			errs = append(errs, field.Duplicate(at.Child("name"), name))
		}
		seen[name] = true
		if p.Protocol == nil {
			errs = append(errs, field.Required(at.Child("protocol"), ""))
		} else {
			errs = append(errs, check.OneOf(*p.Protocol, at.Child("protocol"), check.Protocols...)...)
		}
		if p.AppProtocol != nil {
			errs = append(errs, check.Strings(validation.IsQualifiedName(*p.AppProtocol), at.Child("appProtocol"), *p.AppProtocol)...)
		}
	}
	return errs
}

func validateHints(h *discoveryv1.EndpointHints, path *field.Path) field.ErrorList {
	zones := make([]string, len(h.ForZones))
	for i, z := range h.ForZones {
		zones[i] = z.Name
	}
	nodes := make([]string, len(h.ForNodes))
	for i, n := range h.ForNodes {
		nodes[i] = n.Name
	}
	errs := validateHint(zones, path.Child("forZones"), validation.IsValidLabelValue)
	return append(errs, validateHint(nodes, path.Child("forNodes"), func(n string) []string {
		return apivalidation.NameIsDNSSubdomain(n, false)
	})...)
}

func validateHint(names []string, path *field.Path, valid func(string) []string) field.ErrorList {
	if n := len(names); n > maxHints {
		return field.ErrorList{field.TooMany(path, n, maxHints)}
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, name := range names {
		at := path.Index(i).Child("name")
		if seen[name] {
			errs = append(errs, field.Duplicate(at, name))
		}
		seen[name] = true
		errs = append(errs, check.Strings(valid(name), at, name)...)
	}
	return errs
}
