package apiserver

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/store"
)

// prefixes are the parts of keys that upstream does not name after the resource.
var prefixes = map[schema.GroupResource]string{
	{Resource: "nodes"}:                                                    "minions",
	{Resource: "services"}:                                                 "services/specs",
	{Resource: "endpoints"}:                                                "services/endpoints",
	{Resource: "replicationcontrollers"}:                                   "controllers",
	{Group: "networking.k8s.io", Resource: "ingresses"}:                    "ingress",
	{Group: "apiregistration.k8s.io", Resource: "apiservices"}:             "apiregistration.k8s.io/apiservices",
	{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"}: "apiextensions.k8s.io/customresourcedefinitions",
}

// triggers are the fields by which the watch cache finds the watchers of a change at once: every kubelet watches its
// own pods, and without an index each pod's change would be offered to each kubelet's watch.
var triggers = map[schema.GroupResource]string{
	{Resource: "pods"}:       "spec.nodeName",
	{Resource: "nodes"}:      "metadata.name",
	{Resource: "secrets"}:    "metadata.name",
	{Resource: "configmaps"}: "metadata.name",
}

// returned are the resources whose deletion is answered with the object as it was, and not with a bare success.
var returned = map[schema.GroupResource]bool{
	{Resource: "pods"}: true, {Resource: "services"}: true,
	{Resource: "persistentvolumeclaims"}: true, {Resource: "persistentvolumes"}: true, {Resource: "podtemplates"}: true,
	{Resource: "resourcequotas"}: true, {Resource: "serviceaccounts"}: true,
	{Group: "resource.k8s.io", Resource: "deviceclasses"}: true, {Group: "resource.k8s.io", Resource: "resourceclaims"}: true,
	{Group: "resource.k8s.io", Resource: "resourceclaimtemplates"}: true, {Group: "resource.k8s.io", Resource: "resourceslices"}: true,
	{Group: "storage.k8s.io", Resource: "csidrivers"}: true, {Group: "storage.k8s.io", Resource: "csinodes"}: true,
	{Group: "storage.k8s.io", Resource: "storageclasses"}: true, {Group: "storage.k8s.io", Resource: "volumeattachments"}: true,
	{Group: "storage.k8s.io", Resource: "volumeattributesclasses"}: true,
}

// layout says how a kind's objects are kept: in protobuf, at the version in which their Go type is published.
// Kinds of two groups that share a Go type (Events) so share their storage.
func (c codecs) layout(gr schema.GroupResource, k *resource.Kind) (store.Resource, error) {
	kinds, _, err := c.scheme.ObjectKinds(k.New())
	if err != nil {
		return store.Resource{}, err
	}
	at := slices.IndexFunc(kinds, func(k schema.GroupVersionKind) bool { return k.Version != runtime.APIVersionInternal })
	if at < 0 {
		return store.Resource{}, fmt.Errorf("%T is registered in no version", k.New())
	}
	codec, versioner, err := serverstorage.NewStorageCodec(serverstorage.StorageCodecConfig{
		StorageMediaType:  runtime.ContentTypeProtobuf,
		StorageSerializer: c.factory,
		StorageVersion:    kinds[at].GroupVersion(),
		MemoryVersion:     schema.GroupVersion{Group: gr.Group, Version: runtime.APIVersionInternal},
	})
	if err != nil {
		return store.Resource{}, err
	}
	return store.Resource{
		Codec: codec, Versioner: versioner, Prefix: prefixOf(gr),
		Uncached: k.NoWatchCache, Secret: gr == schema.GroupResource{Resource: "secrets"},
	}, nil
}

func prefixOf(gr schema.GroupResource) string {
	if p, ok := prefixes[gr]; ok {
		return p
	}
	return gr.Resource
}

// builder makes the storage of kinds.
type builder struct {
	codecs codecs
	store  *store.Store
	deps   resource.Deps
}

// build returns the endpoints of a kind by path ("pods", "pods/status", ...) and its store, nil for a virtual kind.
func (b builder) build(g resource.Group, k *resource.Kind) (map[string]rest.Storage, *genericregistry.Store, error) {
	if k.Storage != nil {
		s, err := k.Storage(b.deps)
		return map[string]rest.Storage{k.Plural: s}, nil, err
	}
	strat := b.strategy(g, k)
	st := newStore(schema.GroupResource{Group: g.Name, Resource: k.Plural}, strat)
	layout := func(gr schema.GroupResource, _ runtime.Object) (store.Resource, error) { return b.codecs.layout(gr, k) }
	if err := st.CompleteWithOptions(storeOptions(b.store.RESTOptions(layout), st.DefaultQualifiedResource, k)); err != nil {
		return nil, nil, err
	}
	out := map[string]rest.Storage{}
	if k.HasStatus {
		// Copied before Install: its hooks are for the kind itself (addresses of Services), not for its status.
		status := *st
		status.UpdateStrategy = statusStrategy{strat}
		status.ResetFieldsStrategy = statusStrategy{strat}
		out[k.Plural+"/status"] = statusStorage{&status}
	}
	out[k.Plural] = withNames(k, st)
	if k.Install != nil {
		subs, err := k.Install(b.deps, st)
		if err != nil {
			return nil, nil, err
		}
		for name, s := range subs {
			if full, ok := s.(standard); ok && name == "" {
				s = withNames(k, full)
			}
			out[strings.TrimSuffix(k.Plural+"/"+name, "/")] = s
		}
	}
	return out, st, nil
}

func (b builder) strategy(g resource.Group, k *resource.Kind) strategy {
	s := strategy{ObjectTyper: b.codecs.scheme, NameGenerator: names.SimpleNameGenerator, kind: k}
	s.anyFinalizer = k.Kind == "Event" || g.Name == "admissionregistration.k8s.io" || g.Name == "apiregistration.k8s.io"
	for _, v := range versionsOf(g, *k) {
		s.apiVersions = append(s.apiVersions, fieldpath.APIVersion(schema.GroupVersion{Group: g.Name, Version: v}.String()))
	}
	return s
}

func newStore(gr schema.GroupResource, strat strategy) *genericregistry.Store {
	k := strat.kind
	singular := k.Singular
	if singular == "" {
		singular = strings.ToLower(k.Kind)
	}
	st := &genericregistry.Store{
		NewFunc:                   k.New,
		NewListFunc:               k.NewList,
		DefaultQualifiedResource:  gr,
		SingularQualifiedResource: schema.GroupResource{Group: gr.Group, Resource: singular},
		CreateStrategy:            strat,
		UpdateStrategy:            strat,
		DeleteStrategy:            strat,
		ResetFieldsStrategy:       strat,
		TableConvertor:            newTable(k),
		TTLFunc:                   k.TTL,
		ReturnDeletedObject:       returned[gr],
	}
	if k.CheckGracefulDelete != nil {
		st.DeleteStrategy = gracefulStrategy{strat}
	}
	return st
}

func storeOptions(getter generic.RESTOptionsGetter, gr schema.GroupResource, k *resource.Kind) *generic.StoreOptions {
	o := &generic.StoreOptions{RESTOptions: getter, AttrFunc: attrs(k)}
	if by, ok := triggers[gr]; ok {
		o.TriggerFunc = storage.IndexerFuncs{by: func(obj runtime.Object) string {
			_, f, _ := o.AttrFunc(obj)
			return f[by]
		}}
	}
	return o
}

// attrs gives what a selector can see of an object.
func attrs(k *resource.Kind) storage.AttrFunc {
	return func(obj runtime.Object) (labels.Set, fields.Set, error) {
		m, err := meta.Accessor(obj)
		if err != nil {
			return nil, nil, err
		}
		set := fields.Set{}
		if k.Fields != nil {
			if own := k.Fields(obj); own != nil {
				set = own
			}
		}
		set["metadata.name"] = m.GetName()
		if k.Namespaced {
			set["metadata.namespace"] = m.GetNamespace()
		}
		return m.GetLabels(), set, nil
	}
}

// readable, writable and standard are what the library looks for in a stored kind, all but the deletion of collections.
type readable interface {
	rest.StorageWithReadiness
	rest.Getter
	rest.Lister
	rest.Watcher
	rest.Scoper
}

type writable interface {
	rest.CreaterUpdater
	rest.GracefulDeleter
	rest.MayReturnFullObjectDeleter
	rest.StorageVersionProvider
	rest.ResetFieldsStrategy
}

type standard interface {
	readable
	writable
	rest.SingularNameProvider
}

// endpoint adds a kind's names to its storage, for discovery.
type endpoint struct {
	standard
	kind *resource.Kind
}

// Watch answers an unreadable resourceVersion as List does, where the library answers with an internal error.
func (e endpoint) Watch(ctx context.Context, o *internalversion.ListOptions) (watch.Interface, error) {
	w, err := e.standard.Watch(ctx, o)
	if err != nil && storage.IsInvalidError(err) {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return w, err
}

// Update answers an applied object that does not fit the schema as what the client did wrong.
func (e endpoint) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, force bool, o *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return e.standard.Update(ctx, name, applied{info}, create, update, force, o)
}

// GetCorruptObjDeleter implements rest.CorruptObjectDeleterProvider: what cannot be read can be deleted, if asked for (KEP-3926).
func (e endpoint) GetCorruptObjDeleter() rest.GracefulDeleter {
	if p, ok := e.standard.(rest.CorruptObjectDeleterProvider); ok {
		return p.GetCorruptObjDeleter()
	}
	return nil
}

func (e endpoint) ShortNames() []string { return e.kind.ShortNames }
func (e endpoint) Categories() []string { return e.kind.Categories }

// collection is an endpoint that also deletes collections.
type collection struct {
	endpoint
	rest.CollectionDeleter
}

func withNames(k *resource.Kind, s standard) rest.Storage {
	e := endpoint{standard: s, kind: k}
	if d, ok := s.(rest.CollectionDeleter); ok && (k.Verbs == nil || slices.Contains(k.Verbs, "deletecollection")) {
		return collection{endpoint: e, CollectionDeleter: d}
	}
	return e
}

// statusStorage serves a kind's status subresource.
type statusStorage struct{ store *genericregistry.Store }

var (
	_ rest.Patcher             = statusStorage{}
	_ rest.ResetFieldsStrategy = statusStorage{}
)

func (s statusStorage) New() runtime.Object { return s.store.New() }

// Destroy does nothing: the kind's own endpoint has the storage.
func (s statusStorage) Destroy() {}

func (s statusStorage) Get(ctx context.Context, name string, o *metav1.GetOptions) (runtime.Object, error) {
	return s.store.Get(ctx, name, o)
}

// Update never creates, whatever the kind's own endpoint does.
func (s statusStorage) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, _ bool, o *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return s.store.Update(ctx, name, applied{info}, create, update, false, o)
}

func (s statusStorage) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return s.store.GetResetFields()
}

func (s statusStorage) ConvertToTable(ctx context.Context, object, options runtime.Object) (*metav1.Table, error) {
	return s.store.ConvertToTable(ctx, object, options)
}
