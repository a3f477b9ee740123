package podspec

import (
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/claim"
)

// WarningsForTemplate are upstream's warnings about an accepted template at path.
func WarningsForTemplate(t *corev1.PodTemplateSpec, path *field.Path) []string {
	if t == nil {
		return nil
	}
	return warner{path: path, spec: &t.Spec, annotations: t.Annotations}.all()
}

// Warnings are upstream's warnings about an accepted pod.
func Warnings(spec *corev1.PodSpec, annotations map[string]string) []string {
	return warner{spec: spec, annotations: annotations}.all()
}

// warner holds what is warned about. Path is nil for a pod.
type warner struct {
	path        *field.Path
	spec        *corev1.PodSpec
	annotations map[string]string
}

func (w warner) all() []string {
	var out []string
	for _, part := range []func() []string{w.selectors, w.oldAnnotations, w.volumes, w.overlaps, w.doubles, w.fractions,
		w.containers, w.ports, w.portNames, w.affinities, w.addresses} {
		out = append(out, part()...)
	}
	return out
}

func (w warner) at(names ...string) *field.Path { return w.path.Child("spec", names...) }

func say(path *field.Path, format string, args ...any) string {
	return path.String() + ": " + fmt.Sprintf(format, args...)
}

var oldNodeLabels = map[string]string{
	"beta.kubernetes.io/arch":                       `deprecated since v1.14; use "kubernetes.io/arch" instead`,
	"beta.kubernetes.io/os":                         `deprecated since v1.14; use "kubernetes.io/os" instead`,
	"failure-domain.beta.kubernetes.io/region":      `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
	"failure-domain.beta.kubernetes.io/zone":        `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
	"beta.kubernetes.io/instance-type":              `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
	"app.kubernetes.io/created-by":                  "deprecated since v1.9",
	"scheduler.alpha.kubernetes.io/preferAvoidPods": "deprecated since v1.22; use Taints and Tolerations instead",
	"node-role.kubernetes.io/master":                `use "node-role.kubernetes.io/control-plane" instead`,
}

// OldNodeLabel explains a label of nodes that has another name by now; empty for all others.
func OldNodeLabel(key string) string { return oldNodeLabels[key] }

// WarningsForNodeTerm are about old labels in a node selector's term and, if asked, values that no label can have.
func WarningsForNodeTerm(term corev1.NodeSelectorTerm, checkValues bool, path *field.Path) []string {
	var out []string
	for i, e := range term.MatchExpressions {
		at := path.Child("matchExpressions").Index(i)
		if msg := OldNodeLabel(e.Key); msg != "" {
			out = append(out, say(at.Child("key"), "%s is %s", e.Key, msg))
		}
		if !checkValues {
			continue
		}
		for j, value := range e.Values {
			for _, msg := range validation.IsValidLabelValue(value) {
				out = append(out, say(at.Child("values").Index(j), "%s is invalid, %s", value, msg))
			}
		}
	}
	return out
}

const matchesNothing = "a null labelSelector results in matching no pod"

func (w warner) selectors() []string {
	var out []string
	for key := range w.spec.NodeSelector {
		if msg := OldNodeLabel(key); msg != "" {
			out = append(out, say(w.at("nodeSelector").Key(key), "%s", msg))
		}
	}
	if a := w.spec.Affinity; a != nil && a.NodeAffinity != nil {
		at := w.at("affinity", "nodeAffinity")
		if r := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
			for i, term := range r.NodeSelectorTerms {
				out = append(out, WarningsForNodeTerm(term, false, at.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms").Index(i))...)
			}
		}
		for i, term := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
			out = append(out, WarningsForNodeTerm(term.Preference, true, at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("preference"))...)
		}
	}
	for i, c := range w.spec.TopologySpreadConstraints {
		at := w.at("topologySpreadConstraints").Index(i)
		if msg := OldNodeLabel(c.TopologyKey); msg != "" {
			out = append(out, say(at.Child("topologyKey"), "%s is %s", c.TopologyKey, msg))
		}
		if c.LabelSelector == nil {
			out = append(out, say(at.Child("labelSelector"), matchesNothing))
		}
	}
	return out
}

func (w warner) oldAnnotations() []string {
	var out []string
	for _, old := range []struct{ key, message string }{
		{"scheduler.alpha.kubernetes.io/critical-pod", `non-functional in v1.16+; use the "priorityClassName" field instead`},
		{"security.alpha.kubernetes.io/sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
		{"security.alpha.kubernetes.io/unsafe-sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
	} {
		if _, set := w.annotations[old.key]; set {
			out = append(out, say(w.path.Child("metadata", "annotations").Key(old.key), "%s", old.message))
		}
	}
	return out
}

func (w warner) volumes() []string {
	var out []string
	for i := range w.spec.Volumes {
		v, at := &w.spec.Volumes[i], w.at("volumes").Index(i)
		for _, old := range []struct {
			set           bool
			name, message string
		}{
			{v.PhotonPersistentDisk != nil, "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"},
			{v.GitRepo != nil, "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"},
			{v.ScaleIO != nil, "scaleIO", "deprecated in v1.16, non-functional in v1.22+"},
			{v.Flocker != nil, "flocker", "deprecated in v1.22, non-functional in v1.25+"},
			{v.StorageOS != nil, "storageOS", "deprecated in v1.22, non-functional in v1.25+"},
			{v.Quobyte != nil, "quobyte", "deprecated in v1.22, non-functional in v1.25+"},
			{v.Glusterfs != nil, "glusterfs", "deprecated in v1.25, non-functional in v1.26+"},
			{v.CephFS != nil, "cephfs", "deprecated in v1.28, non-functional in v1.31+"},
			{v.RBD != nil, "rbd", "deprecated in v1.28, non-functional in v1.31+"},
		} {
			if old.set {
				out = append(out, say(at.Child(old.name), "%s", old.message))
			}
		}
		if e := v.Ephemeral; e != nil && e.VolumeClaimTemplate != nil {
			out = append(out, claim.Warnings(&e.VolumeClaimTemplate.Spec, at.Child("ephemeral", "volumeClaimTemplate", "spec"))...)
		}
	}
	return out
}

// doubles are list entries of which the later one counts, or neither.
func (w warner) doubles() []string {
	var out []string
	hosts := map[string]bool{}
	for i, h := range w.spec.HostAliases {
		if hosts[h.IP] {
			out = append(out, say(w.at("hostAliases").Index(i).Child("ip"), "duplicate ip %q", h.IP))
		}
		hosts[h.IP] = true
	}
	secrets := map[string]bool{}
	for i, s := range w.spec.ImagePullSecrets {
		at := w.at("imagePullSecrets").Index(i).Child("name")
		if secrets[s.Name] {
			out = append(out, say(at, "duplicate name %q", s.Name))
		}
		secrets[s.Name] = true
		if s.Name == "" {
			out = append(out, say(at, "invalid empty name %q", s.Name))
		}
	}
	return out
}

func fraction(list corev1.ResourceList, path *field.Path) []string {
	var out []string
	for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if size, ok := list[name]; ok && size.MilliValue()%1000 != 0 {
			out = append(out, say(path.Key(string(name)), "fractional byte value %q is invalid, must be an integer", size.String()))
		}
	}
	return out
}

func (w warner) fractions() []string { return fraction(w.spec.Overhead, w.at("overhead")) }

func (w warner) containers() []string {
	var out []string
	annotation := func(key, message string) {
		if _, set := w.annotations[key]; set {
			out = append(out, say(w.path.Child("metadata", "annotations").Key(key), "%s", message))
		}
	}
	const seccomp = `non-functional in v1.27+; use the "seccompProfile" field instead`
	if sc := w.spec.SecurityContext; sc == nil || sc.SeccompProfile == nil {
		annotation(seccompPodKey, seccomp)
	}
	for c, at := range Containers(w.spec, w.path.Child("spec")) {
		if c.SecurityContext == nil || c.SecurityContext.SeccompProfile == nil {
			annotation(seccompContainerKey+c.Name, seccomp)
		}
		if w.path != nil && (c.SecurityContext == nil || c.SecurityContext.AppArmorProfile == nil) {
			// Of pods it is MoveAppArmor that warns.
			text, set := w.annotations[apparmorContainerKey+c.Name]
			if profile := podArmor(w.spec); set && (profile == nil || !reflect.DeepEqual(profile, armorProfile(text))) {
				out = append(out, armorWarning(w.path, c.Name))
			}
		}
		out = append(out, fraction(c.Resources.Limits, at.Child("resources", "limits"))...)
		out = append(out, fraction(c.Resources.Requests, at.Child("resources", "requests"))...)
		out = append(out, hiddenEnv(c, at)...)
	}
	return out
}

// hiddenEnv: a second definition is fine only if it builds on the first, as PATH="/x:$(PATH)" does.
func hiddenEnv(c *corev1.Container, path *field.Path) []string {
	var out []string
	seen := map[string]bool{}
	for i, e := range c.Env {
		ref := "$(" + e.Name + ")"
		if seen[e.Name] && (e.ValueFrom != nil || e.Value == ref || !strings.Contains(e.Value, ref)) {
			out = append(out, say(path.Child("env").Index(i), "hides previous definition of %q, which may be dropped when using apply", e.Name))
		}
		seen[e.Name] = true
	}
	return out
}

func (w warner) ports() []string {
	var out []string
	type portAt struct {
		port corev1.ContainerPort
		at   *field.Path
	}
	all := map[string][]portAt{}
	for c, path := range Containers(w.spec, w.path.Child("spec")) {
		for i, p := range c.Ports {
			at := path.Child("ports").Index(i)
			if p.HostIP != "" && p.HostPort == 0 {
				out = append(out, say(at, "hostIP set without hostPort: %+v", p))
			}
			key := fmt.Sprintf("%d/%s", p.ContainerPort, p.Protocol)
			for _, other := range all[key] {
				if kind := clash(p, other.port); kind != "" {
					out = append(out, say(at, "%s port definition with %s", kind, other.at))
				}
			}
			all[key] = append(all[key], portAt{p, at})
		}
	}
	return out
}

// clash says how two definitions of one container port get in each other's way.
func clash(a, b corev1.ContainerPort) string {
	switch {
	case a.HostIP == b.HostIP && a.HostPort == b.HostPort:
		return "duplicate"
	case a.HostPort == 0 || b.HostPort == 0:
		return "overlapping"
	case a.HostPort == b.HostPort && (a.HostIP == "") != (b.HostIP == ""):
		return "dangerously ambiguous"
	}
	return ""
}

func (w warner) portNames() []string {
	var out []string
	first := map[string]*field.Path{}
	for c, path := range Containers(w.spec, w.path.Child("spec")) {
		for i, p := range c.Ports {
			at := path.Child("ports").Index(i)
			switch other := first[p.Name]; {
			case p.Name == "":
			case other == nil:
				first[p.Name] = at
			default:
				out = append(out, say(at, "duplicate port name %q with %s, services and probes that select ports by name will use %s", p.Name, other, other))
			}
		}
	}
	return out
}

func (w warner) affinities() []string {
	var out []string
	if grace := w.spec.TerminationGracePeriodSeconds; grace != nil && *grace < 0 {
		out = append(out, say(w.at("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1"))
	}
	pods := func(hard []corev1.PodAffinityTerm, soft []corev1.WeightedPodAffinityTerm, name string) {
		at := w.at("affinity", name)
		for i, t := range hard {
			if t.LabelSelector == nil {
				out = append(out, say(at.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i).Child("labelSelector"), matchesNothing))
			}
		}
		for i, t := range soft {
			if t.PodAffinityTerm.LabelSelector == nil {
				out = append(out, say(at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("podAffinityTerm", "labelSelector"), matchesNothing))
			}
		}
	}
	if a := w.spec.Affinity; a != nil {
		if p := a.PodAffinity; p != nil {
			pods(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, "podAffinity")
		}
		if p := a.PodAntiAffinity; p != nil {
			pods(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, "podAntiAffinity")
		}
	}
	return out
}

func (w warner) addresses() []string {
	var out []string
	if d := w.spec.DNSConfig; d != nil {
		for i, ip := range d.Nameservers {
			out = append(out, validation.GetWarningsForIP(w.at("dnsConfig", "nameservers").Index(i), ip)...)
		}
	}
	for i, h := range w.spec.HostAliases {
		out = append(out, validation.GetWarningsForIP(w.at("hostAliases").Index(i).Child("ip"), h.IP)...)
	}
	return out
}
