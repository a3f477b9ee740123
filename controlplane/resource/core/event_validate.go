package core

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/controlplane/resource/check"
)

// Limits of an event's texts, in bytes.
const (
	eventShortText = 128
	eventNote      = 1024
)

// byNewerFace says whether a request speaks of events as events.k8s.io, which has stricter rules for the same objects.
func byNewerFace(ctx context.Context) bool {
	info, ok := request.RequestInfoFrom(ctx)
	return ok && info.APIGroup == eventsv1.GroupName
}

// validateEvent holds on both event APIs. An event without eventTime is one of the old kind. The one who reports has a
// name in each of them.
func validateEvent(e *corev1.Event, reporter string) field.ErrorList {
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
	controller := field.NewPath(reporter)
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

// validateNewEvent holds the rules that only the newer face has. Paths name the stored fields, as upstream's do.
func validateNewEvent(e *corev1.Event) field.ErrorList {
	errs := check.Finalizers(e)
	if e.Name != "" {
		errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(e.Name, false), field.NewPath("metadata", "name"), e.Name)...)
	}
	errs = append(errs, validateSeries(e.Series)...)
	if e.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", e.Type)))
	}
	unset := func(name string, isUnset bool) {
		if !isUnset {
			errs = append(errs, field.Invalid(field.NewPath(name), "", "needs to be unset"))
		}
	}
	unset("firstTimestamp", e.FirstTimestamp.IsZero())
	unset("lastTimestamp", e.LastTimestamp.IsZero())
	unset("count", e.Count == 0)
	unset("source", e.Source == corev1.EventSource{})
	return errs
}

// validateEventChange lets an update change the series and metadata alone.
func validateEventChange(e, old *corev1.Event) field.ErrorList {
	errs := check.Finalizers(e)
	if !check.Same(e.Series, old.Series) {
		errs = append(errs, validateSeries(e.Series)...)
	}
	for _, f := range []struct {
		name     string
		now, was any
	}{
		{"involvedObject", e.InvolvedObject, old.InvolvedObject},
		{"reason", e.Reason, old.Reason},
		{"message", e.Message, old.Message},
		{"source", e.Source, old.Source},
		{"firstTimestamp", e.FirstTimestamp, old.FirstTimestamp},
		{"lastTimestamp", e.LastTimestamp, old.LastTimestamp},
		{"count", e.Count, old.Count},
		{"type", e.Type, old.Type},
		{"action", e.Action, old.Action},
		{"related", e.Related, old.Related},
		{"reportingController", e.ReportingController, old.ReportingController},
		{"reportingInstance", e.ReportingInstance, old.ReportingInstance},
	} {
		errs = append(errs, check.Immutable(f.now, f.was, field.NewPath(f.name))...)
	}
	// Clients truncate to microseconds when they serialise: a finer difference is none.
	if !e.EventTime.Truncate(time.Microsecond).Equal(old.EventTime.Truncate(time.Microsecond)) {
		errs = append(errs, check.Immutable(e.EventTime, old.EventTime, field.NewPath("eventTime"))...)
	}
	return errs
}

func validateSeries(s *corev1.EventSeries) field.ErrorList {
	var errs field.ErrorList
	if s != nil && s.Count < 2 {
		errs = append(errs, field.Invalid(field.NewPath("series.count"), "", "should be at least 2"))
	}
	if s != nil && s.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("series.lastObservedTime"), ""))
	}
	return errs
}
