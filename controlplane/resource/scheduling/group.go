package scheduling

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
)

const (
	// SystemPrefix begins the names of the classes that only the system makes.
	SystemPrefix = "system-"
	// HighestUser is the highest priority that a user's class may have.
	HighestUser int32 = 1000000000
	// ClusterCritical and NodeCritical are the names of the two system classes.
	ClusterCritical = "system-cluster-critical"
	NodeCritical    = "system-node-critical"
)

// System are the classes that exist in every cluster from its first moment.
func System() []*schedulingv1.PriorityClass {
	class := func(name string, value int32, description string) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{
			TypeMeta:         metav1.TypeMeta{APIVersion: "scheduling.k8s.io/v1", Kind: "PriorityClass"},
			ObjectMeta:       metav1.ObjectMeta{Name: name},
			Value:            value,
			Description:      description,
			PreemptionPolicy: ptr.To(corev1.PreemptLowerPriority),
		}
	}
	return []*schedulingv1.PriorityClass{
		class(NodeCritical, 2*HighestUser+1000,
			"Used for system critical pods that must not be moved from their current node."),
		class(ClusterCritical, 2*HighestUser,
			"Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
	}
}

// Group is scheduling.k8s.io.
func Group() resource.Group {
	return resource.Group{
		Name:        schedulingv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{schedulingv1.AddToScheme},
		Kinds:       []resource.Kind{priorityClass()},
	}
}

func priorityClass() resource.Kind {
	doc := schedulingv1.PriorityClass{}.SwaggerDoc()
	return resource.Of(resource.Kind{
		Kind: "PriorityClass", Plural: "priorityclasses", ShortNames: []string{"pc"},
		NoAge:   true,
		New:     func() runtime.Object { return &schedulingv1.PriorityClass{} },
		NewList: func() runtime.Object { return &schedulingv1.PriorityClassList{} },
		Columns: []resource.Column{
			cell.Name(),
			resource.Col("Value", "integer", doc["value"], 0,
				func(p *schedulingv1.PriorityClass) any { return int64(p.Value) }),
			resource.Col("Global-Default", "boolean", doc["globalDefault"], 0,
				func(p *schedulingv1.PriorityClass) any { return p.GlobalDefault }),
			cell.Age(),
			resource.Col("PreemptionPolicy", "string", doc["preemptionPolicy"], 0,
				func(p *schedulingv1.PriorityClass) any { return cell.Or(p.PreemptionPolicy, "") }),
		},
	}, resource.Rules[*schedulingv1.PriorityClass]{
		// The first generation stays: nothing but words can change.
		PrepareForCreate: func(_ context.Context, p *schedulingv1.PriorityClass) { p.Generation = 1 },
		Default: func(p *schedulingv1.PriorityClass) {
			if p.PreemptionPolicy == nil {
				p.PreemptionPolicy = ptr.To(corev1.PreemptLowerPriority)
			}
		},
		Validate:       validate,
		ValidateUpdate: validateUpdate,
	})
}

func validate(_ context.Context, p *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if strings.HasPrefix(p.Name, SystemPrefix) {
		if err := knownSystemClass(p); err != nil {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"),
				"priority class names with '"+SystemPrefix+"' prefix are reserved for system use only. error: "+err.Error()))
		}
	} else if p.Value > HighestUser {
		errs = append(errs, field.Forbidden(field.NewPath("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %v", HighestUser)))
	}
	policy := field.NewPath("preemptionPolicy")
	switch p := p.PreemptionPolicy; {
	case p == nil:
	case *p == "":
		errs = append(errs, field.Required(policy, ""))
	default:
		errs = append(errs, check.OneOf(*p, policy, corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	return errs
}

// knownSystemClass accepts exactly what System returns; the description is free.
func knownSystemClass(p *schedulingv1.PriorityClass) error {
	for _, s := range System() {
		if s.Name != p.Name {
			continue
		}
		if s.Value != p.Value {
			return fmt.Errorf("value of %v PriorityClass must be %v", s.Name, s.Value)
		}
		if s.GlobalDefault != p.GlobalDefault {
			return fmt.Errorf("globalDefault of %v PriorityClass must be %v", s.Name, s.GlobalDefault)
		}
		return nil
	}
	return fmt.Errorf("%v is not a known system priority class", p.Name)
}

func validateUpdate(_ context.Context, obj, old *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if obj.Value != old.Value {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
	}
	return append(errs, check.Immutable(obj.PreemptionPolicy, old.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
}
