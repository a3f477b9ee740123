package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Limits of an event's texts, in bytes.
const (
	eventShortText = 128
	eventNote      = 1024
)

// validateEvent holds on both event APIs. An event without eventTime is one of the old kind.
func validateEvent(e *corev1.Event) field.ErrorList {
	mismatch := field.ErrorList{field.Invalid(field.NewPath("involvedObject", "namespace"), e.InvolvedObject.Namespace, "does not match event.namespace")}
	about := e.InvolvedObject.Namespace
	if e.EventTime.IsZero() {
		// Events about cluster-wide objects live in no namespace or, by old clients, in "default".
		if about == "" && (e.Namespace == "" || e.Namespace == metav1.NamespaceDefault) || about != "" && about == e.Namespace {
			return nil
		}
		return mismatch
	}
	var errs field.ErrorList
	if about == "" && e.Namespace != metav1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem {
		errs = mismatch
	}
	controller := field.NewPath("reportingComponent")
	if e.ReportingController == "" {
		errs = append(errs, field.Required(controller, ""))
	}
	for _, msg := range validation.IsQualifiedName(e.ReportingController) {
		errs = append(errs, field.Invalid(controller, e.ReportingController, msg))
	}
	errs = append(errs, shortText(e.ReportingInstance, "reportingInstance")...)
	errs = append(errs, shortText(e.Action, "action")...)
	errs = append(errs, shortText(e.Reason, "reason")...)
	if len(e.Message) > eventNote {
		errs = append(errs, tooManyCharacters("message", eventNote))
	}
	return errs
}

func shortText(s, name string) field.ErrorList {
	switch {
	case s == "":
		return field.ErrorList{field.Required(field.NewPath(name), "")}
	case len(s) > eventShortText:
		return field.ErrorList{tooManyCharacters(name, eventShortText)}
	}
	return nil
}

func tooManyCharacters(name string, limit int) *field.Error {
	return field.Invalid(field.NewPath(name), "", fmt.Sprintf("can have at most %v characters", limit))
}
