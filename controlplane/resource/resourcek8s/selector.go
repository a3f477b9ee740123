package resourcek8s

import (
	"fmt"
	"sync"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/ext"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/version"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/library"
)

// deviceType is what a selector knows as `device`, with the sizes that slices are held to: the worst cost of an expression goes by them.
var deviceType = sync.OnceValue(func() *apiservercel.DeclType {
	of := func(t *apiservercel.DeclType, most int64) *apiservercel.DeclType {
		bounded := *t
		bounded.MaxElements = most
		return &bounded
	}
	byName := func(value *apiservercel.DeclType) *apiservercel.DeclType { // domain, then name
		inner := apiservercel.NewMapType(of(apiservercel.StringType, resourcev1.DeviceMaxIDLength), value, resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)
		return apiservercel.NewMapType(of(apiservercel.StringType, resourcev1.DeviceMaxDomainLength), inner, resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)
	}
	fields := map[string]*apiservercel.DeclField{}
	for name, t := range map[string]*apiservercel.DeclType{
		"driver":                   of(apiservercel.StringType, resourcev1.DriverNameMaxLength),
		"attributes":               byName(of(apiservercel.AnyType, resourcev1.DeviceAttributeMaxValueLength)),
		"capacity":                 byName(apiservercel.QuantityDeclType),
		"allowMultipleAllocations": apiservercel.BoolType,
	} {
		fields[name] = apiservercel.NewDeclField(name, t, true, nil, nil)
	}
	return apiservercel.NewObjectType("kubernetes.DRADevice", fields)
})

// selectorEnvironment is made when the first selector comes.
var selectorEnvironment = sync.OnceValues(func() (*environment.EnvSet, error) {
	return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()).Extend(environment.VersionedOptions{
		IntroducedVersion: version.MajorMinor(1, 31),
		EnvOptions:        []celgo.EnvOption{celgo.Variable("device", deviceType().CelType()), ext.Bindings(ext.BindingsVersion(0))},
		DeclTypes:         []*apiservercel.DeclType{deviceType()},
	})
})

// validateExpression checks that a selector compiles, answers yes or no, and cannot cost more than evaluation allows (KEP-4381).
func validateExpression(text string, path *field.Path) field.ErrorList {
	set, err := selectorEnvironment()
	if err != nil {
		return field.ErrorList{field.InternalError(path, err)}
	}
	env, err := set.Env(environment.NewExpressions)
	if err != nil {
		return field.ErrorList{field.InternalError(path, err)}
	}
	ast, issues := env.Compile(text)
	if issues != nil {
		return field.ErrorList{field.Invalid(path, text, "compilation failed: "+issues.String())}
	}
	if t := ast.OutputType(); t != celgo.BoolType && t != celgo.AnyType {
		return field.ErrorList{field.Invalid(path, text, fmt.Sprintf("must evaluate to bool or the unknown type, not %v", t))}
	}
	cost, err := env.EstimateCost(ast, &library.CostEstimator{SizeEstimator: deviceSizes{}})
	if err != nil {
		return field.ErrorList{field.InternalError(path, fmt.Errorf("cost estimation failed: %w", err))}
	}
	if cost.Max > resourcev1.CELSelectorExpressionMaxCost {
		return field.ErrorList{field.Forbidden(path, "too complex, exceeds cost limit")}
	}
	return nil
}

// deviceSizes implements checker.CostEstimator: how large what a path from `device` leads to can be.
type deviceSizes struct{}

// EstimateSize implements checker.CostEstimator; nil: unknown.
func (deviceSizes) EstimateSize(node checker.AstNode) *checker.SizeEstimate {
	path := node.Path()
	if len(path) == 0 || path[0] != "device" {
		return nil
	}
	t := deviceType()
	for _, step := range path[1:] {
		switch f := t.Fields[step]; {
		case f != nil:
			t = f.Type
		case step == "@keys":
			t = t.KeyType
		default: // "@items", "@values", or a key by its name: they are alike
			t = t.ElemType
		}
		if t == nil {
			return nil
		}
	}
	return &checker.SizeEstimate{Max: uint64(t.MaxElements)}
}

// EstimateCallCost implements checker.CostEstimator: calls are the library's.
func (deviceSizes) EstimateCallCost(_, _ string, _ *checker.AstNode, _ []checker.AstNode) *checker.CallEstimate {
	return nil
}
