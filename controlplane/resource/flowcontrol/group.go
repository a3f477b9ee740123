package flowcontrol

import (
	"cmp"
	"context"
	"maps"
	"slices"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
)

// Group is flowcontrol.apiserver.k8s.io.
func Group() resource.Group {
	return resource.Group{
		Name:        flowcontrolv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{flowcontrolv1.AddToScheme},
		Kinds:       []resource.Kind{flowSchema(), priorityLevel()},
	}
}

// Bootstrap returns what every cluster has. The mandatory ones must be as they are here; the others are the server's
// advice, which it renews while the annotation says so.
func Bootstrap() ([]*flowcontrolv1.FlowSchema, []*flowcontrolv1.PriorityLevelConfiguration) {
	var schemas []*flowcontrolv1.FlowSchema
	for _, s := range slices.Concat(bootstrap.MandatoryFlowSchemas, bootstrap.SuggestedFlowSchemas) {
		s = s.DeepCopy()
		autoUpdate(&s.ObjectMeta)
		defaultSchema(s)
		schemas = append(schemas, s)
	}
	var levels []*flowcontrolv1.PriorityLevelConfiguration
	for _, l := range slices.Concat(bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations) {
		l = l.DeepCopy()
		autoUpdate(&l.ObjectMeta)
		defaultLevel(l)
		levels = append(levels, l)
	}
	return schemas, levels
}

func autoUpdate(m *metav1.ObjectMeta) {
	m.Annotations = maps.Clone(m.Annotations)
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	m.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] = "true"
}

func flowSchema() resource.Kind {
	type schema = flowcontrolv1.FlowSchema
	doc := flowcontrolv1.FlowSchemaSpec{}.SwaggerDoc()
	return resource.Of(resource.Kind{
		Kind: "FlowSchema", Plural: "flowschemas", HasStatus: true, HasGeneration: true, NoAge: true,
		Order: func(a, b runtime.Object) int { // in which requests are matched
			x, y := a.(*schema), b.(*schema)
			return cmp.Or(cmp.Compare(x.Spec.MatchingPrecedence, y.Spec.MatchingPrecedence), cmp.Compare(x.Name, y.Name))
		},
		New:     func() runtime.Object { return &schema{} },
		NewList: func() runtime.Object { return &flowcontrolv1.FlowSchemaList{} },
		Columns: []resource.Column{
			cell.Name(),
			resource.Col("PriorityLevel", "string", flowcontrolv1.PriorityLevelConfigurationReference{}.SwaggerDoc()["name"], 0,
				func(s *schema) any { return s.Spec.PriorityLevelConfiguration.Name }),
			resource.Col("MatchingPrecedence", "string", doc["matchingPrecedence"], 0, func(s *schema) any { return int64(s.Spec.MatchingPrecedence) }),
			resource.Col("DistinguisherMethod", "string", doc["distinguisherMethod"], 0, func(s *schema) any {
				if s.Spec.DistinguisherMethod == nil {
					return "<none>"
				}
				return string(s.Spec.DistinguisherMethod.Type)
			}),
			cell.Age(),
			resource.Col("MissingPL", "string", "references a broken or non-existent PriorityLevelConfiguration", 0, func(s *schema) any {
				for _, c := range s.Status.Conditions {
					if c.Type == flowcontrolv1.FlowSchemaConditionDangling {
						return string(c.Status)
					}
				}
				return "?"
			}),
		},
	}, resource.Rules[*schema]{
		Default:  defaultSchema,
		Validate: func(_ context.Context, s *schema) field.ErrorList { return validateSchema(s) },
		PrepareStatusUpdate: func(_ context.Context, s, old *schema) {
			metav1.ResetObjectMetaForStatus(&s.ObjectMeta, &old.ObjectMeta)
		},
		ValidateStatusUpdate: func(_ context.Context, s, _ *schema) field.ErrorList {
			types := make([]string, len(s.Status.Conditions))
			for i, c := range s.Status.Conditions {
				types[i] = string(c.Type)
			}
			return validateConditionTypes(types)
		},
	})
}

func defaultSchema(s *flowcontrolv1.FlowSchema) {
	if s.Spec.MatchingPrecedence == 0 {
		s.Spec.MatchingPrecedence = 1000
	}
}

func priorityLevel() resource.Kind {
	type level = flowcontrolv1.PriorityLevelConfiguration
	queuing := flowcontrolv1.QueuingConfiguration{}.SwaggerDoc()
	number := func(name, description string, value func(*flowcontrolv1.QueuingConfiguration) int32) resource.Column {
		return resource.Col(name, "string", description, 0, func(l *level) any {
			if l.Spec.Limited == nil || l.Spec.Limited.LimitResponse.Queuing == nil {
				return "<none>"
			}
			return int64(value(l.Spec.Limited.LimitResponse.Queuing))
		})
	}
	return resource.Of(resource.Kind{
		Kind: "PriorityLevelConfiguration", Plural: "prioritylevelconfigurations", HasStatus: true, HasGeneration: true,
		New:     func() runtime.Object { return &level{} },
		NewList: func() runtime.Object { return &flowcontrolv1.PriorityLevelConfigurationList{} },
		Columns: []resource.Column{
			resource.Col("Type", "string", flowcontrolv1.PriorityLevelConfigurationSpec{}.SwaggerDoc()["type"], 0,
				func(l *level) any { return string(l.Spec.Type) }),
			resource.Col("NominalConcurrencyShares", "string", flowcontrolv1.LimitedPriorityLevelConfiguration{}.SwaggerDoc()["nominalConcurrencyShares"], 0,
				func(l *level) any {
					if l.Spec.Limited == nil || l.Spec.Limited.NominalConcurrencyShares == nil {
						return "<none>"
					}
					return int64(*l.Spec.Limited.NominalConcurrencyShares)
				}),
			number("Queues", queuing["queues"], func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.Queues }),
			number("HandSize", queuing["handSize"], func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.HandSize }),
			number("QueueLengthLimit", queuing["queueLengthLimit"], func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.QueueLengthLimit }),
		},
	}, resource.Rules[*level]{
		Default:  defaultLevel,
		Validate: func(_ context.Context, l *level) field.ErrorList { return validateLevel(l) },
		PrepareStatusUpdate: func(_ context.Context, l, old *level) {
			metav1.ResetObjectMetaForStatus(&l.ObjectMeta, &old.ObjectMeta)
		},
		ValidateStatusUpdate: func(_ context.Context, l, _ *level) field.ErrorList {
			types := make([]string, len(l.Status.Conditions))
			for i, c := range l.Status.Conditions {
				types[i] = string(c.Type)
			}
			return validateConditionTypes(types)
		},
	})
}

func defaultLevel(l *flowcontrolv1.PriorityLevelConfiguration) {
	set := func(p **int32, v int32) {
		if *p == nil {
			*p = &v
		}
	}
	if e := l.Spec.Exempt; e != nil {
		set(&e.NominalConcurrencyShares, 0)
		set(&e.LendablePercent, 0)
	}
	if m := l.Spec.Limited; m != nil {
		set(&m.NominalConcurrencyShares, 30)
		set(&m.LendablePercent, 0)
		if q := m.LimitResponse.Queuing; q != nil {
			for _, f := range []struct {
				p *int32
				v int32
			}{{&q.HandSize, 8}, {&q.Queues, 64}, {&q.QueueLengthLimit, 50}} {
				if *f.p == 0 {
					*f.p = f.v
				}
			}
		}
	}
}
