package core

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/column"
)

// eventTTL is how long the store keeps an event, in seconds.
const eventTTL = 60 * 60

func eventKind() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "Event", Plural: "events", ShortNames: []string{"ev"}, Namespaced: true,
		New:     func() runtime.Object { return &corev1.Event{} },
		NewList: func() runtime.Object { return &corev1.EventList{} },
		// The client names an event after its object and a time; upstream checks nothing about it on this API.
		ValidateName:        func(string, bool) []string { return nil },
		AllowCreateOnUpdate: true,
		Columns:             eventColumns(),
		NoAge:               true,
		TTL:                 func(runtime.Object, uint64, bool) (uint64, error) { return eventTTL, nil },
		NoWatchCache:        true,
	}, resource.Rules[*corev1.Event]{
		Validate: func(ctx context.Context, e *corev1.Event) field.ErrorList {
			if !byNewerFace(ctx) {
				return validateEvent(e, "reportingComponent")
			}
			return append(validateEvent(e, "reportingController"), validateNewEvent(e)...)
		},
		ValidateUpdate: func(ctx context.Context, e, old *corev1.Event) field.ErrorList {
			if !byNewerFace(ctx) { // an event may change in any way
				return validateEvent(e, "reportingComponent")
			}
			return append(validateEvent(e, "reportingController"), validateEventChange(e, old)...)
		},
		Fields: eventFields,
	})
}

// eventFields are an event's selectable fields, under the core/v1 names.
func eventFields(e *corev1.Event) fields.Set {
	o := e.InvolvedObject
	return fields.Set{
		"involvedObject.kind":            o.Kind,
		"involvedObject.namespace":       o.Namespace,
		"involvedObject.name":            o.Name,
		"involvedObject.uid":             string(o.UID),
		"involvedObject.apiVersion":      o.APIVersion,
		"involvedObject.resourceVersion": o.ResourceVersion,
		"involvedObject.fieldPath":       o.FieldPath,
		"reason":                         e.Reason,
		"reportingComponent":             e.ReportingController,
		"source":                         column.Or(e.Source.Component, e.ReportingController),
		"type":                           e.Type,
	}
}

// eventColumns are all columns of `kubectl get events`; NAME is a wide one here and not the first.
func eventColumns() []resource.Column {
	col := func(name, doc string, priority int32, value func(*corev1.Event) any) resource.Column {
		return resource.Col(name, "string", column.Doc(corev1.Event{}, doc), priority, value)
	}
	return []resource.Column{
		col("Last Seen", "lastTimestamp", 0, func(e *corev1.Event) any { return lastSeen(e) }),
		col("Type", "type", 0, func(e *corev1.Event) any { return e.Type }),
		col("Reason", "reason", 0, func(e *corev1.Event) any { return e.Reason }),
		col("Object", "involvedObject", 0, func(e *corev1.Event) any { return eventTarget(e) }),
		resource.Col("Subobject", "string", column.Doc(corev1.ObjectReference{}, "fieldPath"), 1,
			func(e *corev1.Event) any { return e.InvolvedObject.FieldPath }),
		col("Source", "source", 1, func(e *corev1.Event) any { return eventSource(e) }),
		col("Message", "message", 0, func(e *corev1.Event) any { return strings.TrimSpace(e.Message) }),
		col("First Seen", "firstTimestamp", 1, func(e *corev1.Event) any { return firstSeen(e) }),
		col("Count", "count", 1, func(e *corev1.Event) any { return eventCount(e) }),
		column.Name(1),
	}
}

func firstSeen(e *corev1.Event) string {
	if e.FirstTimestamp.IsZero() {
		return cell.SinceMicro(e.EventTime)
	}
	return cell.Since(e.FirstTimestamp)
}

func lastSeen(e *corev1.Event) string {
	switch {
	case e.Series != nil:
		return cell.SinceMicro(e.Series.LastObservedTime)
	case e.LastTimestamp.IsZero():
		return firstSeen(e)
	}
	return cell.Since(e.LastTimestamp)
}

func eventCount(e *corev1.Event) int64 {
	switch {
	case e.Series != nil:
		return int64(e.Series.Count)
	case e.Count == 0: // an event of the newer API that happened once
		return 1
	}
	return int64(e.Count)
}

func eventTarget(e *corev1.Event) string {
	kind := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name == "" {
		return kind
	}
	return kind + "/" + e.InvolvedObject.Name
}

func eventSource(e *corev1.Event) string {
	component := column.Or(e.Source.Component, e.ReportingController)
	if instance := column.Or(e.Source.Host, e.ReportingInstance); instance != "" {
		return component + ", " + instance
	}
	return component
}
