package events

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// toCore returns the stored form of e. The result shares e's maps and pointers.
func toCore(e *eventsv1.Event) *corev1.Event {
	out := &corev1.Event{
		ObjectMeta:          e.ObjectMeta,
		InvolvedObject:      e.Regarding,
		Reason:              e.Reason,
		Message:             e.Note,
		Source:              e.DeprecatedSource,
		FirstTimestamp:      e.DeprecatedFirstTimestamp,
		LastTimestamp:       e.DeprecatedLastTimestamp,
		Count:               e.DeprecatedCount,
		Type:                e.Type,
		EventTime:           e.EventTime,
		Action:              e.Action,
		Related:             e.Related,
		ReportingController: e.ReportingController,
		ReportingInstance:   e.ReportingInstance,
	}
	if s := e.Series; s != nil {
		out.Series = &corev1.EventSeries{Count: s.Count, LastObservedTime: s.LastObservedTime}
	}
	return out
}

// fromCore is the inverse of toCore.
func fromCore(e *corev1.Event) *eventsv1.Event {
	out := &eventsv1.Event{
		TypeMeta:                 metav1.TypeMeta{},
		ObjectMeta:               e.ObjectMeta,
		EventTime:                e.EventTime,
		ReportingController:      e.ReportingController,
		ReportingInstance:        e.ReportingInstance,
		Action:                   e.Action,
		Reason:                   e.Reason,
		Regarding:                e.InvolvedObject,
		Related:                  e.Related,
		Note:                     e.Message,
		Type:                     e.Type,
		DeprecatedSource:         e.Source,
		DeprecatedFirstTimestamp: e.FirstTimestamp,
		DeprecatedLastTimestamp:  e.LastTimestamp,
		DeprecatedCount:          e.Count,
	}
	if s := e.Series; s != nil {
		out.Series = &eventsv1.EventSeries{Count: s.Count, LastObservedTime: s.LastObservedTime}
	}
	return out
}

func fromCoreList(l *corev1.EventList) *eventsv1.EventList {
	out := &eventsv1.EventList{ListMeta: l.ListMeta, Items: make([]eventsv1.Event, len(l.Items))}
	for i := range l.Items {
		out.Items[i] = *fromCore(&l.Items[i])
	}
	return out
}

// storedSelector renames this face's selectable fields to the stored object's.
func storedSelector(s fields.Selector) (fields.Selector, error) {
	if s == nil || s.Empty() {
		return s, nil
	}
	return s.Transform(func(name, value string) (string, string, error) {
		if rest, ok := strings.CutPrefix(name, "regarding."); ok {
			return "involvedObject." + rest, value, nil
		}
		if name == "reportingController" {
			return "reportingComponent", value, nil
		}
		return name, value, nil
	})
}
