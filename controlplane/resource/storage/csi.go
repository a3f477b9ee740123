package storage

import (
	"context"
	"fmt"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/volumesource"
)

const (
	maxNodeID          = 256
	minTokenSeconds    = 600
	maxTokenSeconds    = 1 << 32
	minAllocatableTick = 10
)

func csiDriver() resource.Kind {
	type driver = storagev1.CSIDriver
	doc := storagev1.CSIDriverSpec{}.SwaggerDoc()
	yes := func(name, documented string, otherwise bool, value func(*storagev1.CSIDriverSpec) *bool) resource.Column {
		return resource.Col(name, "boolean", doc[documented], 0, func(d *driver) any { return ptr.Deref(value(&d.Spec), otherwise) })
	}
	return resource.Of(resource.Kind{
		Kind: "CSIDriver", Plural: "csidrivers", ForbidUnconditionalUpdate: true,
		New:     func() runtime.Object { return &driver{} },
		NewList: func() runtime.Object { return &storagev1.CSIDriverList{} },
		Columns: []resource.Column{
			yes("AttachRequired", "attachRequired", true, func(s *storagev1.CSIDriverSpec) *bool { return s.AttachRequired }),
			yes("PodInfoOnMount", "podInfoOnMount", false, func(s *storagev1.CSIDriverSpec) *bool { return s.PodInfoOnMount }),
			yes("StorageCapacity", "storageCapacity", false, func(s *storagev1.CSIDriverSpec) *bool { return s.StorageCapacity }),
			resource.Col("TokenRequests", "string", doc["tokenRequests"], 0, func(d *driver) any {
				if d.Spec.TokenRequests == nil {
					return "<unset>"
				}
				return list(d.Spec.TokenRequests, func(r storagev1.TokenRequest) string { return r.Audience })
			}),
			yes("RequiresRepublish", "requiresRepublish", false, func(s *storagev1.CSIDriverSpec) *bool { return s.RequiresRepublish }),
			resource.Col("Modes", "string", doc["volumeLifecycleModes"], 0, func(d *driver) any {
				if len(d.Spec.VolumeLifecycleModes) == 0 {
					return "<none>"
				}
				return list(d.Spec.VolumeLifecycleModes, func(m storagev1.VolumeLifecycleMode) string { return string(m) })
			}),
		},
	}, resource.Rules[*driver]{
		Default: defaultDriver,
		PrepareForUpdate: func(_ context.Context, d, old *driver) {
			if !check.Same(d.Spec, old.Spec) { // counted from nothing: a new driver has no generation
				d.Generation = old.Generation + 1
			}
		},
		Warnings: func(_ context.Context, d, old *driver) []string {
			tokens := d.Spec.TokenRequests
			if len(tokens) == 0 || d.Spec.ServiceAccountTokenInSecrets != nil || old != nil && check.Same(tokens, old.Spec.TokenRequests) {
				return nil
			}
			return []string{"spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"}
		},
		Validate: func(_ context.Context, d *driver) field.ErrorList {
			return validateDriver(&d.Spec, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, d, old *driver) field.ErrorList {
			path := field.NewPath("spec")
			errs := validateDriver(&d.Spec, path)
			// Upstream's spelling of the path.
			errs = append(errs, check.Immutable(d.Spec.AttachRequired, old.Spec.AttachRequired, path.Child("attachedRequired"))...)
			return append(errs, check.Immutable(d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes, path.Child("volumeLifecycleModes"))...)
		},
	})
}

func list[E any](items []E, text func(E) string) string {
	texts := make([]string, len(items))
	for i, e := range items {
		texts[i] = text(e)
	}
	return strings.Join(texts, ",")
}

func defaultDriver(d *storagev1.CSIDriver) {
	s := &d.Spec
	set(&s.AttachRequired, true)
	set(&s.PodInfoOnMount, false)
	set(&s.StorageCapacity, false)
	set(&s.FSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	if len(s.VolumeLifecycleModes) == 0 {
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
	set(&s.RequiresRepublish, false)
	set(&s.SELinuxMount, false)
	set(&s.PreventPodSchedulingIfMissing, false)
}

func validateDriver(s *storagev1.CSIDriverSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"attachedRequired", s.AttachRequired != nil}, {"podInfoOnMount", s.PodInfoOnMount != nil}, // the first in upstream's spelling
		{"storageCapacity", s.StorageCapacity != nil}, {"seLinuxMount", s.SELinuxMount != nil},
		{"preventPodSchedulingIfMissing", s.PreventPodSchedulingIfMissing != nil},
	} {
		if !f.set {
			errs = append(errs, field.Required(path.Child(f.name), ""))
		}
	}
	if p := s.FSGroupPolicy; p != nil {
		errs = append(errs, check.OneOf(*p, path.Child("fsGroupPolicy"),
			storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)...)
	}
	errs = append(errs, validateTokenRequests(s.TokenRequests, path.Child("tokenRequests"))...)
	for _, m := range s.VolumeLifecycleModes {
		errs = append(errs, check.OneOf(m, path.Child("volumeLifecycleModes"), storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral)...)
	}
	if n := s.NodeAllocatableUpdatePeriodSeconds; n != nil && *n < minAllocatableTick {
		errs = append(errs, field.Invalid(path.Child("nodeAllocatableUpdatePeriodSeconds"), *n, fmt.Sprintf("must be greater than or equal to %d seconds", minAllocatableTick)))
	}
	if t := s.ServiceAccountTokenInSecrets; t != nil && len(s.TokenRequests) == 0 {
		errs = append(errs, field.Invalid(path.Child("serviceAccountTokenInSecrets"), *t, "serviceAccountTokenInSecrets is set but no tokenRequests are specified"))
	}
	return errs
}

func validateTokenRequests(requests []storagev1.TokenRequest, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, r := range requests {
		if seen[r.Audience] {
			errs = append(errs, field.Duplicate(path.Index(i).Child("audience"), r.Audience))
			continue
		}
		seen[r.Audience] = true
		if e := r.ExpirationSeconds; e != nil {
			at := path.Index(i).Child("expirationSeconds")
			if *e < minTokenSeconds {
				errs = append(errs, field.Invalid(at, *e, "may not specify a duration less than 10 minutes"))
			}
			if *e > maxTokenSeconds {
				errs = append(errs, field.Invalid(at, *e, "may not specify a duration larger than 2^32 seconds"))
			}
		}
	}
	return errs
}

func csiNode() resource.Kind {
	type node = storagev1.CSINode
	return resource.Of(resource.Kind{
		Kind: "CSINode", Plural: "csinodes", ForbidUnconditionalUpdate: true, HasStatus: true,
		New:     func() runtime.Object { return &node{} },
		NewList: func() runtime.Object { return &storagev1.CSINodeList{} },
		Columns: []resource.Column{
			resource.Col("Drivers", "integer", "Drivers indicates the number of CSI drivers registered on the node", 0,
				func(n *node) any { return int64(len(n.Spec.Drivers)) }),
		},
	}, resource.Rules[*node]{
		PrepareStatusUpdate: func(_ context.Context, n, old *node) {
			metav1.ResetObjectMetaForStatus(&n.ObjectMeta, &old.ObjectMeta)
			n.Status.StorageHealth = nil // all that the status has; it is off by default
		},
		Validate: func(_ context.Context, n *node) field.ErrorList {
			return validateNodeDrivers(n.Spec.Drivers, field.NewPath("spec", "drivers"))
		},
		ValidateUpdate: func(_ context.Context, n, old *node) field.ErrorList {
			errs := validateNodeDrivers(n.Spec.Drivers, field.NewPath("spec", "drivers"))
			for _, was := range old.Spec.Drivers {
				for _, now := range n.Spec.Drivers {
					now.Allocatable, was.Allocatable = nil, nil // a limit may change while the driver runs
					if now.Name == was.Name && !check.Same(now, was) {
						errs = append(errs, field.Invalid(field.NewPath("spec", "drivers"), now, apivalidation.FieldImmutableErrorMsg))
					}
				}
			}
			return errs
		},
	})
}

func validateNodeDrivers(drivers []storagev1.CSINodeDriver, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, d := range drivers {
		at := path.Index(i)
		errs = append(errs, volumesource.CSIDriver(d.Name, at.Child("name"))...)
		switch {
		case d.NodeID == "":
			errs = append(errs, field.Required(at.Child("nodeID"), ""))
		case len(d.NodeID) > maxNodeID:
			errs = append(errs, field.Invalid(at.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", maxNodeID)))
		}
		if d.Allocatable != nil {
			errs = append(errs, check.NonNegativePtr(d.Allocatable.Count, at.Child("allocatable", "count"))...)
		}
		if seen[d.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), d.Name))
		}
		seen[d.Name] = true
		keys := map[string]bool{}
		for _, k := range d.TopologyKeys {
			if k == "" {
				errs = append(errs, field.Required(at, k))
			}
			if keys[k] {
				errs = append(errs, field.Duplicate(at, k))
			}
			keys[k] = true
			errs = append(errs, check.Strings(validation.IsQualifiedName(k), at, k)...)
		}
	}
	return errs
}

func csiStorageCapacity() resource.Kind {
	type capacity = storagev1.CSIStorageCapacity
	return resource.Of(resource.Kind{
		Kind: "CSIStorageCapacity", Plural: "csistoragecapacities", Namespaced: true, ForbidUnconditionalUpdate: true, NoAge: true,
		New:     func() runtime.Object { return &capacity{} },
		NewList: func() runtime.Object { return &storagev1.CSIStorageCapacityList{} },
		Columns: []resource.Column{cell.Name(), cell.Created()},
	}, resource.Rules[*capacity]{
		Validate: func(_ context.Context, c *capacity) field.ErrorList { return validateCapacity(c, nil) },
		Warnings: func(_ context.Context, c, _ *capacity) []string {
			return oldLabels(c.NodeTopology, field.NewPath("nodeTopology"))
		},
		ValidateUpdate: func(_ context.Context, c, old *capacity) field.ErrorList {
			errs := validateCapacity(c, old)
			errs = append(errs, check.Immutable(c.NodeTopology, old.NodeTopology, field.NewPath("nodeTopology"))...)
			return append(errs, check.Immutable(c.StorageClassName, old.StorageClassName, field.NewPath("storageClassName"))...)
		},
	})
}

func validateCapacity(c, old *storagev1.CSIStorageCapacity) field.ErrorList {
	var errs field.ErrorList
	if old == nil {
		errs = check.Selector(c.NodeTopology, field.NewPath("nodeTopology"))
	} else {
		errs = check.SelectorUpdate(c.NodeTopology, old.NodeTopology, field.NewPath("nodeTopology"))
	}
	errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(c.StorageClassName, false), field.NewPath("storageClassName"), c.StorageClassName)...)
	if q := c.Capacity; q != nil && q.Sign() < 0 {
		errs = append(errs, field.Invalid(field.NewPath("capacity"), q.String(), apivalidation.IsNegativeErrorMsg))
	}
	return errs
}
