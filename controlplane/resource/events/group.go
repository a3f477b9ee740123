package events

import (
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
)

// coreEvents is where events are stored.
var coreEvents = schema.GroupResource{Resource: "events"}

// Group is events.k8s.io.
func Group() resource.Group {
	return resource.Group{
		Name:        eventsv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{eventsv1.AddToScheme},
		Kinds: []resource.Kind{resource.Of(resource.Kind{
			Kind: "Event", Plural: "events", ShortNames: []string{"ev"}, Namespaced: true,
			New:     func() runtime.Object { return &eventsv1.Event{} },
			NewList: func() runtime.Object { return &eventsv1.EventList{} },
			Storage: func(d resource.Deps) (rest.Storage, error) { return &storage{store: d.Store}, nil },
		}, resource.Rules[*eventsv1.Event]{Fields: selectable})},
	}
}

// selectable are the fields that this face's clients may select by, under its own names.
func selectable(e *eventsv1.Event) fields.Set {
	return fields.Set{
		"regarding.kind":            e.Regarding.Kind,
		"regarding.namespace":       e.Regarding.Namespace,
		"regarding.name":            e.Regarding.Name,
		"regarding.uid":             string(e.Regarding.UID),
		"regarding.apiVersion":      e.Regarding.APIVersion,
		"regarding.resourceVersion": e.Regarding.ResourceVersion,
		"regarding.fieldPath":       e.Regarding.FieldPath,
		"reason":                    e.Reason,
		"reportingController":       e.ReportingController,
		"type":                      e.Type,
	}
}
