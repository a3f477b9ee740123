package core

import (
	"context"
	"fmt"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
)

var (
	coreV1   = corev1.SchemeGroupVersion
	eventsV1 = eventsv1.SchemeGroupVersion
)

// Limits of an event's texts, in bytes.
const (
	eventShortText = 128
	eventNote      = 1024
)

func requestVersion(ctx context.Context) schema.GroupVersion {
	if info, ok := request.RequestInfoFrom(ctx); ok {
		return schema.GroupVersion{Group: info.APIGroup, Version: info.APIVersion}
	}
	return coreV1
}

// ValidateEventUpdate checks an updated event; by events.k8s.io/v1 only its series may change.
func ValidateEventUpdate(ctx context.Context, e, old *corev1.Event) field.ErrorList {
	version := requestVersion(ctx)
	errs := validateEventCommon(e, version == coreV1)
	if version != eventsV1 {
		return errs
	}
	if !reflect.DeepEqual(e.Series, old.Series) {
		errs = append(errs, validateSeries(e.Series)...)
	}
	immutable := func(value, oldValue any, name string) {
		errs = append(errs, apivalidation.ValidateImmutableField(value, oldValue, field.NewPath(name))...)
	}
	immutable(e.InvolvedObject, old.InvolvedObject, "involvedObject")
	immutable(e.Reason, old.Reason, "reason")
	immutable(e.Message, old.Message, "message")
	immutable(e.Source, old.Source, "source")
	immutable(e.FirstTimestamp, old.FirstTimestamp, "firstTimestamp")
	immutable(e.LastTimestamp, old.LastTimestamp, "lastTimestamp")
	immutable(e.Count, old.Count, "count")
	immutable(e.Reason, old.Reason, "reason") // twice, as upstream
	immutable(e.Type, old.Type, "type")
	// Clients and protobuf keep microseconds; a finer difference is no change.
	if !sameMicrosecond(e.EventTime, old.EventTime) {
		immutable(e.EventTime, old.EventTime, "eventTime")
	}
	immutable(e.Action, old.Action, "action")
	immutable(e.Related, old.Related, "related")
	immutable(e.ReportingController, old.ReportingController, "reportingController")
	immutable(e.ReportingInstance, old.ReportingInstance, "reportingInstance")
	return errs
}

func sameMicrosecond(a, b metav1.MicroTime) bool {
	return a.Truncate(time.Microsecond).UTC().Equal(b.Truncate(time.Microsecond).UTC())
}

func validateNewEvent(e *corev1.Event) field.ErrorList {
	errs := apivalidation.ValidateObjectMeta(&e.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, validateSeries(e.Series)...)
	if e.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", e.Type)))
	}
	unset := func(ok bool, name string) {
		if !ok {
			errs = append(errs, field.Invalid(field.NewPath(name), "", "needs to be unset"))
		}
	}
	unset(e.FirstTimestamp.IsZero(), "firstTimestamp")
	unset(e.LastTimestamp.IsZero(), "lastTimestamp")
	unset(e.Count == 0, "count")
	unset(e.Source == corev1.EventSource{}, "source")
	return errs
}

func validateSeries(s *corev1.EventSeries) field.ErrorList {
	if s == nil {
		return nil
	}
	var errs field.ErrorList
	if s.Count < 2 {
		errs = append(errs, field.Invalid(field.NewPath("series.count"), "", "should be at least 2"))
	}
	if s.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("series.lastObservedTime"), ""))
	}
	return errs
}

// validateEventCommon holds on both APIs. An event without eventTime is one of the old kind.
func validateEventCommon(e *corev1.Event, byCore bool) field.ErrorList {
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
	controller := field.NewPath("reportingController")
	if byCore {
		controller = field.NewPath("reportingComponent")
	}
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
