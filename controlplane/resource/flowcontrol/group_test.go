package flowcontrol

import (
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(),
		resourcetest.Row{Plural: "flowschemas", Kind: "FlowSchema"},
		resourcetest.Row{Plural: "prioritylevelconfigurations", Kind: "PriorityLevelConfiguration"})
}

// The rows are upstream's of a new cluster: name, precedence and level; level, shares and queues.
func TestBootstrap(t *testing.T) {
	schemas, levels := Bootstrap()
	k := resourcetest.Kind(t, Group(), "FlowSchema")
	type row struct {
		precedence int32
		level      string
	}
	want := map[string]row{
		"exempt": {1, "exempt"}, "probes": {2, "exempt"}, "system-leader-election": {100, "leader-election"},
		"endpoint-controller": {150, "workload-high"}, "workload-leader-election": {200, "leader-election"}, "system-node-high": {400, "node-high"},
		"system-nodes": {500, "system"}, "kube-controller-manager": {800, "workload-high"}, "kube-scheduler": {800, "workload-high"},
		"kube-system-service-accounts": {900, "workload-high"}, "service-accounts": {9000, "workload-low"},
		"global-default": {9900, "global-default"}, "catch-all": {10000, "catch-all"},
	}
	for _, s := range schemas {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), s))
		resourcetest.CheckDefaults(t, k, s.DeepCopy(), s)
		if got := (row{s.Spec.MatchingPrecedence, s.Spec.PriorityLevelConfiguration.Name}); got != want[s.Name] || s.Annotations["apf.kubernetes.io/autoupdate-spec"] != "true" {
			t.Errorf("%s: got %v %v, want %v", s.Name, got, s.Annotations, want[s.Name])
		}
	}
	k = resourcetest.Kind(t, Group(), "PriorityLevelConfiguration")
	shares := map[string]int32{"exempt": -1, "catch-all": 5, "system": 30, "node-high": 40, "leader-election": 10, "workload-high": 40, "workload-low": 100, "global-default": 20}
	for _, l := range levels {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), l))
		resourcetest.CheckDefaults(t, k, l.DeepCopy(), l)
		got := int32(-1)
		if l.Spec.Limited != nil {
			got = *l.Spec.Limited.NominalConcurrencyShares
		}
		if w, ok := shares[l.Name]; !ok || got != w {
			t.Errorf("%s: shares %d, want %d", l.Name, got, w)
		}
		delete(shares, l.Name)
	}
	if len(shares) > 0 {
		t.Errorf("missing levels %v", shares)
	}
}

func TestValidateSchema(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "FlowSchema")
	schema := func(edit func(*flowcontrolv1.FlowSchemaSpec)) *flowcontrolv1.FlowSchema {
		s := &flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: flowcontrolv1.FlowSchemaSpec{
			MatchingPrecedence: 50, PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "l"},
			Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
				Subjects:      []flowcontrolv1.Subject{{Kind: "User", User: &flowcontrolv1.UserSubject{Name: "u"}}},
				ResourceRules: []flowcontrolv1.ResourcePolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}, Namespaces: []string{"*"}}},
			}},
		}}
		edit(&s.Spec)
		return s
	}
	for _, c := range []struct {
		edit func(*flowcontrolv1.FlowSchemaSpec)
		want []string
	}{
		{func(*flowcontrolv1.FlowSchemaSpec) {}, nil},
		{func(s *flowcontrolv1.FlowSchemaSpec) { s.MatchingPrecedence = 1 }, []string{"only the schema named 'exempt' may have matchingPrecedence 1"}},
		{func(s *flowcontrolv1.FlowSchemaSpec) { s.MatchingPrecedence = 10001 }, []string{"must not be greater than 10000"}},
		{func(s *flowcontrolv1.FlowSchemaSpec) { s.PriorityLevelConfiguration.Name = "" }, []string{"spec.priorityLevelConfiguration.name: Required value: must reference a priority level"}},
		{func(s *flowcontrolv1.FlowSchemaSpec) { s.Rules[0].Subjects[0].Kind = "Group" }, []string{
			"spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
			"spec.rules[0].subjects[0].group: Required value: group is required when subject kind is 'Group'"}},
		{func(s *flowcontrolv1.FlowSchemaSpec) { s.Rules[0].ResourceRules[0].Verbs = []string{"fly"} }, []string{"spec.rules[0].resourceRules[0].verbs: Unsupported value"}},
		{func(s *flowcontrolv1.FlowSchemaSpec) { s.Rules[0].ResourceRules[0].Namespaces = nil }, []string{"resource rules that are not cluster scoped must supply at least one namespace"}},
		{func(s *flowcontrolv1.FlowSchemaSpec) {
			s.Rules[0].NonResourceRules = []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"x", "/a*b"}}}
		}, []string{"nonResourceURLs[0]: Invalid value: \"x\": must start with slash", "wildcard can only do suffix matching"}},
	} {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), schema(c.edit)), c.want...)
	}
	schemas, _ := Bootstrap()
	changed := schemas[0].DeepCopy()
	changed.Spec.MatchingPrecedence = 7
	resourcetest.CheckErrors(t, k.Validate(t.Context(), changed), "must equal the fixed value")
}

func TestValidateLevel(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "PriorityLevelConfiguration")
	level := func(q *flowcontrolv1.QueuingConfiguration) *flowcontrolv1.PriorityLevelConfiguration {
		l := &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "l"}, Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
			Type: "Limited", Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{LimitResponse: flowcontrolv1.LimitResponse{Type: "Queue", Queuing: q}}}}
		k.Default(l)
		return l
	}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), level(&flowcontrolv1.QueuingConfiguration{})))
	resourcetest.CheckErrors(t, k.Validate(t.Context(), level(nil)), "spec.limited.limitResponse.queuing: Required value")
	resourcetest.CheckErrors(t, k.Validate(t.Context(), level(&flowcontrolv1.QueuingConfiguration{Queues: 4})), "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (4)")
	resourcetest.CheckErrors(t, k.Validate(t.Context(), level(&flowcontrolv1.QueuingConfiguration{Queues: 512, HandSize: 8})), "required entropy bits of deckSize 512 and handSize 8 should not be greater than 60")
	odd := level(&flowcontrolv1.QueuingConfiguration{})
	odd.Spec.Type = "Exempt"
	resourcetest.CheckErrors(t, k.Validate(t.Context(), odd), "spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'", "spec.limited: Forbidden")
	odd.Spec.Type = ""
	resourcetest.CheckErrors(t, k.Validate(t.Context(), odd), "spec.type: Required value", "spec.limited: Forbidden")
	_, levels := Bootstrap()
	changed := levels[0].DeepCopy()
	changed.Spec.Limited.LendablePercent = ptr.To[int32](1)
	resourcetest.CheckErrors(t, k.Validate(t.Context(), changed), "spec of 'catch-all' must equal the fixed value")
	lends := level(&flowcontrolv1.QueuingConfiguration{})
	lends.Spec.Limited.LendablePercent = ptr.To[int32](101)
	resourcetest.CheckErrors(t, k.Validate(t.Context(), lends), "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive")
}

func TestColumns(t *testing.T) {
	schemas, levels := Bootstrap()
	names, cells := resourcetest.Cells(resourcetest.Kind(t, Group(), "FlowSchema"), schemas[0])
	if names != "Name|PriorityLevel|MatchingPrecedence|DistinguisherMethod|Age|MissingPL" || cells[1] != "exempt" || cells[5] != "?" {
		t.Errorf("columns %s, cells %v", names, cells)
	}
	first, last := &flowcontrolv1.FlowSchema{}, &flowcontrolv1.FlowSchema{}
	first.Name, last.Name, last.Spec.MatchingPrecedence = "z", "a", 1
	if resourcetest.Kind(t, Group(), "FlowSchema").Order(first, last) >= 0 {
		t.Error("rows are not in the order in which requests are matched")
	}
	names, cells = resourcetest.Cells(resourcetest.Kind(t, Group(), "PriorityLevelConfiguration"), levels[0])
	if names != "Type|NominalConcurrencyShares|Queues|HandSize|QueueLengthLimit|Age" || cells[0] != "Limited" || cells[1] != int64(5) || cells[2] != "<none>" {
		t.Errorf("columns %s, cells %v", names, cells)
	}
}
