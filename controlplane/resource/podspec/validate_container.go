package podspec

import (
	"fmt"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/resourcename"
)

// containerRules is what a container is checked against besides itself.
type containerRules struct {
	spec      *corev1.PodSpec
	volumes   map[string]corev1.VolumeSource
	claims    sets.Set[string]
	hostUsers bool
}

func newContainerRules(spec *corev1.PodSpec, volumes map[string]corev1.VolumeSource) containerRules {
	claims := sets.New[string]()
	for _, c := range spec.ResourceClaims {
		if c.Name != "" {
			claims.Insert(c.Name)
		}
	}
	return containerRules{spec: spec, volumes: volumes, claims: claims, hostUsers: spec.HostUsers == nil || *spec.HostUsers}
}

func (r containerRules) all(path *field.Path) field.ErrorList {
	errs := r.containers(path.Child("containers"))
	errs = append(errs, r.initContainers(path.Child("initContainers"))...)
	return append(errs, r.ephemeralContainers(path.Child("ephemeralContainers"))...)
}

func (r containerRules) containers(path *field.Path) field.ErrorList {
	if len(r.spec.Containers) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range r.spec.Containers {
		c, at := &r.spec.Containers[i], path.Index(i)
		errs = append(errs, r.common(c, at)...)
		if names.Has(c.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		names.Insert(c.Name)
		errs = append(errs, r.lifecycle(c, at)...)
		errs = append(errs, validateRestartRules(c.RestartPolicy, c.RestartPolicyRules, at)...)
	}
	return append(errs, duplicateHostPorts(r.spec.Containers, path)...)
}

func (r containerRules) initContainers(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for _, c := range r.spec.Containers {
		names.Insert(c.Name)
	}
	for i := range r.spec.InitContainers {
		c, at := &r.spec.InitContainers[i], path.Index(i)
		errs = append(errs, r.common(c, at)...)
		if c.RestartPolicy == nil && len(c.RestartPolicyRules) > 0 {
			errs = append(errs, field.Required(at.Child("restartPolicy"), rulesNeedPolicy)) // of the rules nothing is said then
		} else {
			errs = append(errs, validateRestartRules(c.RestartPolicy, c.RestartPolicyRules, at)...)
		}
		if names.Has(c.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		} else if c.Name != "" {
			names.Insert(c.Name)
		}
		errs = append(errs, duplicateHostPorts([]corev1.Container{*c}, path)...)
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			errs = append(errs, r.lifecycle(c, at)...)
			continue
		}
		errs = append(errs, onlySidecars(c, at)...)
		for j, p := range c.ResizePolicy {
			if p.RestartPolicy == corev1.RestartContainer {
				errs = append(errs, field.Invalid(at.Child("resizePolicy").Index(j).Child("restartPolicy"), p.RestartPolicy,
					"must not be set to 'RestartContainer' for non-sidecar initContainers"))
			}
		}
	}
	return errs
}

// onlySidecars refuses what makes sense only for a container that goes on running.
func onlySidecars(c *corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	refuse := func(set bool, name string) {
		if set {
			errs = append(errs, field.Forbidden(path.Child(name), "may not be set for init containers without restartPolicy=Always"))
		}
	}
	refuse(c.Lifecycle != nil, "lifecycle")
	refuse(c.LivenessProbe != nil, "livenessProbe")
	refuse(c.ReadinessProbe != nil, "readinessProbe")
	refuse(c.StartupProbe != nil, "startupProbe")
	return errs
}

// ephemeralFields are the fields that an ephemeral container may have.
var ephemeralFields = sets.New("Name", "Image", "Command", "Args", "WorkingDir", "EnvFrom", "Env", "VolumeMounts", "VolumeDevices",
	"TerminationMessagePath", "TerminationMessagePolicy", "ImagePullPolicy", "SecurityContext", "Stdin", "StdinOnce", "TTY")

func (r containerRules) ephemeralContainers(path *field.Path) field.ErrorList {
	const refused = "cannot be set for an Ephemeral Container"
	var errs field.ErrorList
	others := sets.New[string]()
	for _, list := range [][]corev1.Container{r.spec.Containers, r.spec.InitContainers} {
		for _, c := range list {
			others.Insert(c.Name)
		}
	}
	names := others.Clone()
	for i := range r.spec.EphemeralContainers {
		e, at := &r.spec.EphemeralContainers[i], path.Index(i)
		c := (*corev1.Container)(&e.EphemeralContainerCommon)
		errs = append(errs, r.common(c, at)...)
		errs = append(errs, ValidateImageText(c.Image, at.Child("image"))...)
		if names.Has(e.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), e.Name))
		}
		names.Insert(e.Name)
		if e.TargetContainerName != "" && !others.Has(e.TargetContainerName) {
			errs = append(errs, field.NotFound(at.Child("targetContainerName"), e.TargetContainerName))
		}
		errs = append(errs, onlyFields(e.EphemeralContainerCommon, ephemeralFields, refused, at)...)
		for j, m := range e.VolumeMounts {
			if m.SubPath != "" {
				errs = append(errs, field.Forbidden(at.Child("volumeMounts").Index(j).Child("subPath"), refused))
			}
			if m.SubPathExpr != "" {
				errs = append(errs, field.Forbidden(at.Child("volumeMounts").Index(j).Child("subPathExpr"), refused))
			}
		}
	}
	return errs
}

// onlyFields refuses every set field of the struct that is not among the allowed ones.
func onlyFields(value any, allowed sets.Set[string], why string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	v := reflect.ValueOf(value)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if allowed.Has(name) || reflect.DeepEqual(v.Field(i).Interface(), reflect.Zero(v.Field(i).Type()).Interface()) {
			continue
		}
		first, size := utf8.DecodeRuneInString(name)
		errs = append(errs, field.Forbidden(path.Child(string(unicode.ToLower(first))+name[size:]), why))
	}
	return errs
}

// ValidateImageText refuses spaces around an image's name. Templates are not checked for it.
func ValidateImageText(image string, path *field.Path) field.ErrorList {
	if strings.TrimSpace(image) != image {
		return field.ErrorList{field.Invalid(path, image, "must not have leading or trailing whitespace")}
	}
	return nil
}

// common holds for containers of every sort.
func (r containerRules) common(c *corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if c.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	} else {
		errs = append(errs, check.Strings(validation.IsDNS1123Label(c.Name), path.Child("name"), c.Name)...)
	}
	if c.Image == "" {
		errs = append(errs, field.Required(path.Child("image"), ""))
	}
	errs = append(errs, oneOf(c.TerminationMessagePolicy, path.Child("terminationMessagePolicy"),
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)...)
	errs = append(errs, validatePorts(c.Ports, path.Child("ports"))...)
	errs = append(errs, validateEnv(c.Env, path.Child("env"))...)
	errs = append(errs, validateEnvFrom(c.EnvFrom, path.Child("envFrom"))...)
	errs = append(errs, validateMounts(c, r.volumes, path.Child("volumeMounts"))...)
	errs = append(errs, validateDevices(c, r.volumes, path.Child("volumeDevices"))...)
	errs = append(errs, validatePullPolicy(c.ImagePullPolicy, path.Child("imagePullPolicy"))...)
	errs = append(errs, requirements{name: resourcename.ValidateContainer, claims: r.claims}.validate(&c.Resources, path.Child("resources"))...)
	errs = append(errs, validateResizePolicy(c.ResizePolicy, r.spec.RestartPolicy, path.Child("resizePolicy"))...)
	return append(errs, validateSecurity(c.SecurityContext, r.hostUsers, path.Child("securityContext"))...)
}

func validatePullPolicy(policy corev1.PullPolicy, path *field.Path) field.ErrorList {
	return oneOf(policy, path, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
}

func validatePorts(ports []corev1.ContainerPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i, p := range ports {
		at := path.Index(i)
		if p.Name != "" {
			if msgs := validation.IsValidPortName(p.Name); len(msgs) > 0 {
				errs = append(errs, check.Strings(msgs, at.Child("name"), p.Name)...)
			} else if names.Has(p.Name) {
				errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
			} else {
				names.Insert(p.Name)
			}
		}
		if p.ContainerPort == 0 {
			errs = append(errs, field.Required(at.Child("containerPort"), ""))
		} else {
			errs = append(errs, check.Strings(validation.IsValidPortNum(int(p.ContainerPort)), at.Child("containerPort"), p.ContainerPort)...)
		}
		if p.HostPort != 0 {
			errs = append(errs, check.Strings(validation.IsValidPortNum(int(p.HostPort)), at.Child("hostPort"), p.HostPort)...)
		}
		errs = append(errs, oneOf(p.Protocol, at.Child("protocol"), check.Protocols...)...)
	}
	return errs
}

// duplicateHostPorts: two containers of a pod cannot have the same port of the node.
func duplicateHostPorts(containers []corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	taken := sets.New[string]()
	for i, c := range containers {
		for j, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			port := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort)
			if taken.Has(port) {
				errs = append(errs, field.Duplicate(path.Index(i).Child("ports").Index(j).Child("hostPort"), port))
			}
			taken.Insert(port)
		}
	}
	return errs
}

// Limits of a container's own restart rules.
const (
	mostRestartRules = 20
	mostExitCodes    = 255
)

const rulesNeedPolicy = "must specify restartPolicy when restart rules are used"

func validateRestartRules(policy *corev1.ContainerRestartPolicy, rules []corev1.ContainerRestartRule, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	at := path.Child("restartPolicy")
	switch {
	case policy == nil && len(rules) == 0:
		return nil
	case policy == nil:
		errs = append(errs, field.Required(at, rulesNeedPolicy))
	default:
		errs = append(errs, check.OneOf(*policy, at, corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)...)
	}
	if len(rules) > mostRestartRules {
		errs = append(errs, field.TooMany(path.Child("restartPolicyRules"), len(rules), mostRestartRules))
	}
	for i, rule := range rules {
		at := path.Child("restartPolicyRules").Index(i)
		errs = append(errs, check.OneOf(rule.Action, at.Child("action"),
			corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)...)
		codes := at.Child("exitCodes")
		if rule.ExitCodes == nil {
			errs = append(errs, field.Required(codes, "must be specified"))
			continue
		}
		errs = append(errs, check.OneOf(rule.ExitCodes.Operator, codes.Child("operator"),
			corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)...)
		if n := len(rule.ExitCodes.Values); n > mostExitCodes {
			errs = append(errs, field.TooMany(codes.Child("values"), n, mostExitCodes))
		}
	}
	return errs
}

// validateResizePolicy reports everything at the list, as upstream does.
func validateResizePolicy(policies []corev1.ContainerResizePolicy, restart corev1.RestartPolicy, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[corev1.ResourceName]()
	for i, p := range policies {
		if seen.Has(p.ResourceName) {
			errs = append(errs, field.Duplicate(path.Index(i), p.ResourceName))
		}
		seen.Insert(p.ResourceName)
		errs = append(errs, oneOf(p.ResourceName, path, corev1.ResourceCPU, corev1.ResourceMemory)...)
		errs = append(errs, oneOf(p.RestartPolicy, path, corev1.NotRequired, corev1.RestartContainer)...)
		if restart == corev1.RestartPolicyNever && p.RestartPolicy != corev1.NotRequired {
			errs = append(errs, field.Invalid(path, p.RestartPolicy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'"))
		}
	}
	return errs
}
