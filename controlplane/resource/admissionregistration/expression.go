package admissionregistration

import (
	"fmt"
	"strings"
	"sync"

	celgo "github.com/google/cel-go/cel"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"keelson.dev/keelson/controlplane/resource/check"
)

const maxConditions = 64

// variables say which variables beside the request an expression may use.
type variables = plugincel.OptionalVariableDeclarations

var conditionVariables = variables{HasAuthorizer: true}

// environmentSet is the library's CEL environment, made when the first expression comes.
var environmentSet = sync.OnceValue(func() *environment.EnvSet {
	return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
})

// plain compiles expressions that know no composed variables.
var plain = sync.OnceValue(func() plugincel.Compiler { return plugincel.NewCompiler(environmentSet()) })

// expression is an expression with the types that it may have.
type expression struct {
	text  string
	types []*celgo.Type
}

func (e expression) GetExpression() string      { return e.text }
func (e expression) ReturnTypes() []*celgo.Type { return e.types }

// compiled reports whether an expression compiles. One that is stored already is taken as it was: it may have been
// accepted by a version that knew more.
func compiled(c plugincel.Compiler, e expression, v variables, known map[string]bool, at *field.Path) field.ErrorList {
	mode := environment.NewExpressions
	if known[e.text] {
		mode = environment.StoredExpressions
	}
	return failure(c.CompileCELExpression(e, v, mode).Error, e.text, at)
}

func failure(err *apiservercel.Error, text string, at *field.Path) field.ErrorList {
	if err == nil {
		return nil
	}
	switch err.Type {
	case apiservercel.ErrorTypeRequired:
		return field.ErrorList{field.Required(at, err.Detail)}
	case apiservercel.ErrorTypeInvalid:
		return field.ErrorList{field.Invalid(at, text, err.Detail)}
	}
	return field.ErrorList{field.InternalError(at, err)}
}

func validateConditions(list []admissionv1.MatchCondition, v variables, known map[string]bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := len(list); n > maxConditions {
		errs = append(errs, field.TooMany(at, n, maxConditions))
	}
	seen := map[string]bool{}
	for i, c := range list {
		p := at.Index(i)
		if strings.TrimSpace(c.Expression) == "" {
			errs = append(errs, field.Required(p.Child("expression"), ""))
		} else {
			errs = append(errs, compiled(plain(), expression{c.Expression, []*celgo.Type{celgo.BoolType}}, v, known, p.Child("expression"))...)
		}
		if c.Name == "" {
			errs = append(errs, field.Required(p.Child("name"), ""))
			continue
		}
		errs = append(errs, check.Strings(validation.IsQualifiedName(c.Name), p.Child("name"), c.Name)...)
		if seen[c.Name] {
			errs = append(errs, field.Duplicate(p.Child("name"), c.Name))
		}
		seen[c.Name] = true
	}
	return errs
}

// composed is the compiler of a policy, which knows the policy's own variables.
func composed() (*plugincel.CompositedCompiler, error) {
	c, err := plugincel.NewCompositedCompiler(environmentSet())
	if err != nil {
		return nil, fmt.Errorf("make CEL compiler: %w", err)
	}
	return c, nil
}
