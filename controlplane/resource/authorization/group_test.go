package authorization

import (
	"errors"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestValidate(t *testing.T) {
	resource, path := &authorizationv1.ResourceAttributes{}, &authorizationv1.NonResourceAttributes{Path: "/x"}
	selector := &authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{{Operator: "Near"}}}
	for _, c := range []struct {
		spec authorizationv1.SubjectAccessReviewSpec
		want []string
	}{
		{authorizationv1.SubjectAccessReviewSpec{User: "u", ResourceAttributes: resource}, nil},
		{authorizationv1.SubjectAccessReviewSpec{}, []string{
			"spec: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
			`spec.user: Invalid value: "": at least one of user or group must be specified`}},
		{authorizationv1.SubjectAccessReviewSpec{User: "u", ResourceAttributes: resource, NonResourceAttributes: path}, []string{
			`spec: Invalid value: {"Path":"/x","Verb":""}: exactly one of nonResourceAttributes or resourceAttributes must be specified`}},
		{authorizationv1.SubjectAccessReviewSpec{User: "u", ResourceAttributes: &authorizationv1.ResourceAttributes{FieldSelector: selector}}, []string{
			"spec.resourceAttributes.fieldSelector.requirements[0].key: Required value: must be specified"}},
	} {
		resourcetest.CheckErrors(t, validate(c.spec), c.want...)
	}
}

func TestEvaluationError(t *testing.T) {
	a := authorizer.AttributesRecord{FieldSelectorParsingErr: errors.New("odd"), LabelSelectorParsingErr: errors.New("odd"),
		FieldSelectorRequirements: fields.Requirements{{Field: "a"}}}
	want := "down; spec.resourceAttributes.fieldSelector partially ignored due to parse error; " +
		"spec.resourceAttributes.labelSelector ignored due to parse error"
	if got := evaluationError(errors.New("down"), a); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
