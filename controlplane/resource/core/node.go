package core

import (
	"context"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/column"
	"keelson.dev/keelson/controlplane/resource/resourcename"
)

// nodeKind does not set HasStatus: a kubelet registers its node with status, which the mechanism would drop.
// The status subresource comes from installNode instead.
func nodeKind() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "Node", Plural: "nodes", ShortNames: []string{"no"},
		New:     func() runtime.Object { return &corev1.Node{} },
		NewList: func() runtime.Object { return &corev1.NodeList{} },
		Columns: nodeColumns(),
		NoAge:   true,
		Install: installNode,
	}, resource.Rules[*corev1.Node]{
		Default: defaultNode,
		PrepareForCreate: func(_ context.Context, n *corev1.Node) {
			n.Spec.ConfigSource, n.Status.Config, n.Spec.PodPreemptionPolicy = nil, nil, nil
		},
		PrepareForUpdate: func(_ context.Context, n, old *corev1.Node) {
			n.Status = old.Status
			n.Spec.ConfigSource, n.Spec.PodPreemptionPolicy = old.Spec.ConfigSource, old.Spec.PodPreemptionPolicy
		},
		Validate: func(_ context.Context, n *corev1.Node) field.ErrorList { return validateNode(n) },
		ValidateUpdate: func(_ context.Context, n, old *corev1.Node) field.ErrorList {
			return append(validateNode(n), validateNodeUpdate(n, old)...)
		},
		Warnings: func(_ context.Context, n, _ *corev1.Node) []string { return nodeWarnings(n) },
		Fields: func(n *corev1.Node) fields.Set {
			return fields.Set{"spec.unschedulable": strconv.FormatBool(n.Spec.Unschedulable)}
		},
	})
}

func installNode(_ resource.Deps, store *genericregistry.Store) (map[string]rest.Storage, error) {
	status := viewOf(store, viewRules[*corev1.Node]{
		prepare: func(_ context.Context, n, old *corev1.Node) {
			n.Spec = old.Spec
			if old.Status.Config == nil {
				n.Status.Config = nil
			}
		},
		validate: func(_ context.Context, n, old *corev1.Node) field.ErrorList { return validateNodeUpdate(n, old) },
		reset:    []string{"spec"},
	})
	store.ResetFieldsStrategy = view{reset: resetFields("status")}
	return map[string]rest.Storage{"status": status}, nil
}

// defaultNode also keeps podCIDR and podCIDRs[0] equal; podCIDR wins, as older clients know only it.
func defaultNode(n *corev1.Node) {
	switch s := &n.Spec; {
	case s.PodCIDR == "" && len(s.PodCIDRs) > 0:
		s.PodCIDR = s.PodCIDRs[0]
	case s.PodCIDR != "" && (len(s.PodCIDRs) == 0 || s.PodCIDRs[0] != s.PodCIDR):
		s.PodCIDRs = []string{s.PodCIDR}
	}
	if n.Status.Allocatable == nil && n.Status.Capacity != nil {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
	resourcename.RoundUp(n.Status.Capacity)
	resourcename.RoundUp(n.Status.Allocatable)
}

func nodeWarnings(n *corev1.Node) []string {
	var warnings []string
	if n.Spec.ConfigSource != nil {
		warnings = append(warnings, "spec.configSource: the feature is removed")
	}
	if n.Spec.DoNotUseExternalID != "" {
		warnings = append(warnings, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	for i, cidr := range n.Spec.PodCIDRs {
		warnings = append(warnings, validation.GetWarningsForCIDR(field.NewPath("spec", "podCIDRs").Index(i), cidr)...)
	}
	return warnings
}

func nodeColumns() []resource.Column {
	info := func(name, field string, value func(corev1.NodeSystemInfo) string) resource.Column {
		return resource.Col(name, "string", column.Doc(corev1.NodeSystemInfo{}, field), 1,
			func(n *corev1.Node) any { return column.Or(value(n.Status.NodeInfo), "<unknown>") })
	}
	address := func(name string, typ corev1.NodeAddressType) resource.Column {
		return resource.Col(name, "string", column.Doc(corev1.NodeStatus{}, "addresses"), 1,
			func(n *corev1.Node) any { return nodeAddress(n, typ) })
	}
	return []resource.Column{
		column.Name(0),
		resource.Col("Status", "string", "The status of the node", 0, func(n *corev1.Node) any { return nodeStatus(n) }),
		resource.Col("Roles", "string", "The roles of the node", 0, func(n *corev1.Node) any { return nodeRoles(n) }),
		cell.Age(),
		resource.Col("Version", "string", column.Doc(corev1.NodeSystemInfo{}, "kubeletVersion"), 0,
			func(n *corev1.Node) any { return n.Status.NodeInfo.KubeletVersion }),
		address("Internal-IP", corev1.NodeInternalIP),
		address("External-IP", corev1.NodeExternalIP),
		info("OS-Image", "osImage", func(i corev1.NodeSystemInfo) string { return i.OSImage }),
		info("Kernel-Version", "kernelVersion", kernelAndArch),
		info("Container-Runtime", "containerRuntimeVersion", func(i corev1.NodeSystemInfo) string { return i.ContainerRuntimeVersion }),
	}
}

func kernelAndArch(i corev1.NodeSystemInfo) string {
	kernel := column.Or(i.KernelVersion, "<unknown>")
	if i.Architecture == "" {
		return kernel
	}
	return kernel + " (" + i.Architecture + ")"
}

func nodeStatus(n *corev1.Node) string {
	status := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		status = "NotReady"
		if c.Status == corev1.ConditionTrue {
			status = "Ready"
		}
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	return status
}

func nodeRoles(n *corev1.Node) string {
	const prefix, single = "node-role.kubernetes.io/", "kubernetes.io/role"
	roles := sets.New[string]()
	for key, value := range n.Labels {
		if role, ok := strings.CutPrefix(key, prefix); ok && role != "" {
			roles.Insert(role)
		} else if key == single && value != "" {
			roles.Insert(value)
		}
	}
	return column.Or(strings.Join(sets.List(roles), ","), "<none>")
}

func nodeAddress(n *corev1.Node, typ corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == typ {
			return a.Address
		}
	}
	return "<none>"
}
