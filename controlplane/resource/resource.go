// Package resource describes every kind that the API server serves, as data.
//
// A kind is one Kind value in the package of its API group (controlplane/resource/<group>).
// Everything here and below is pure: no clock but the object's own times, no I/O, no logger.
// controlplane/apiserver turns the table into storage, discovery and REST handlers; nothing else reads it.
//
// To add a kind: write its Rules in the group's package (one file), add one row to the group's Kinds,
// and, if the group is new, one line to controlplane/apiserver's list of groups. Make the API's description anew
// (controlplane/apiserver/openapi/generate.sh). Then add an object of it, with all its fields, to test/apidiff/testdata, and ask
// upstream's server and ours the same: make api-diff PEER=kubeconfig KINDS=Kind.
package resource

import (
	"context"
	"net"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
)

// Group is one API group: its types and its kinds.
type Group struct {
	// Name is the API group, "" for core.
	Name string
	// Versions are the served versions, the preferred one first.
	// The Go types of Versions[0] are also registered as the internal version, so they need no conversion.
	Versions []string
	// AddToScheme are the published registrations (corev1.AddToScheme, ...), one per version.
	AddToScheme []func(*runtime.Scheme) error
	// Convert registers conversions for kinds that are served in more than one version; nil for most groups.
	Convert func(*runtime.Scheme) error
	Kinds   []Kind
}

// Kind is one served kind. The zero value of every optional field means "as most kinds do".
type Kind struct {
	Kind       string // "Pod"
	Plural     string // "pods"; empty: the type is registered but only served as the body of subresources
	Singular   string // "pod"; empty: lower case of Kind
	ShortNames []string
	Categories []string
	Namespaced bool
	// Versions in which the kind is served; nil means the group's Versions.
	Versions []string
	// Verbs that are served; nil means create, delete, deletecollection, get, list, patch, update, watch.
	// A virtual kind (SubjectAccessReview, Binding, ...) has no Store at all: see Storage.
	Verbs []string

	New     func() runtime.Object // internal type, which is the preferred version's type
	NewList func() runtime.Object

	// Default sets upstream's defaults; it is called on every decoded object.
	// Other versions of a kind register theirs in Group.Convert.
	Default func(runtime.Object)

	// PrepareForCreate and PrepareForUpdate clear what a client may not set and maintain derived fields.
	// The mechanism itself drops status on create and main updates, and everything but status and metadata (of which
	// owners) on status updates, if HasStatus is set, and maintains metadata.generation by comparing everything but metadata and status
	// if HasGeneration is set.
	PrepareForCreate func(ctx context.Context, obj runtime.Object)
	PrepareForUpdate func(ctx context.Context, obj, old runtime.Object)
	// Validate and ValidateUpdate report upstream's field paths and messages. Object metadata is checked by the
	// mechanism (with ValidateName); these check everything else.
	Validate       func(ctx context.Context, obj runtime.Object) field.ErrorList
	ValidateUpdate func(ctx context.Context, obj, old runtime.Object) field.ErrorList
	// ValidateName checks metadata.name (and, with prefix set, generateName); nil means a DNS-1123 subdomain.
	ValidateName func(name string, prefix bool) []string
	// Warnings are returned to the client with an accepted request. On update old is set, else nil.
	Warnings func(ctx context.Context, obj, old runtime.Object) []string

	// HasStatus: the kind has a status subresource.
	HasStatus            bool
	PrepareStatusUpdate  func(ctx context.Context, obj, old runtime.Object)
	ValidateStatusUpdate func(ctx context.Context, obj, old runtime.Object) field.ErrorList
	// HasGeneration: metadata.generation is maintained.
	HasGeneration bool

	// AllowCreateOnUpdate lets PUT create; ForbidUnconditionalUpdate makes resourceVersion mandatory on PUT.
	AllowCreateOnUpdate       bool
	ForbidUnconditionalUpdate bool
	// OrphanByDefault: dependents are orphaned when the deleter does not say (ReplicationController, Job).
	OrphanByDefault bool
	// CheckGracefulDelete decides the grace period (pods, namespaces); nil: deleted at once.
	CheckGracefulDelete func(ctx context.Context, obj runtime.Object, options *metav1.DeleteOptions) bool

	// Columns are the printed columns between NAME and AGE, or all of them if NoAge; nil: NAME and AGE only.
	Columns []Column
	// NoAge leaves out the generic last column AGE (a kind that prints it elsewhere adds it as a Column).
	NoAge bool
	// Order is the order of a table's rows; nil: that of names.
	Order func(a, b runtime.Object) int
	// Ended says how an object came to its end; an empty reason: it has not. Nil for kinds that go on for ever.
	Ended func(obj runtime.Object) (reason, message string)
	// Fields are the selectable fields beside metadata.name and metadata.namespace.
	Fields func(obj runtime.Object) fields.Set
	// FieldAliases are further names of selectable fields (spec.host of a pod is spec.nodeName).
	FieldAliases map[string]string
	// TTL in seconds after which the store forgets the object (events); nil: never.
	TTL func(obj runtime.Object, existing uint64, update bool) (uint64, error)
	// NoWatchCache serves the kind straight from the store (events).
	NoWatchCache bool

	// Install may set hooks on the kind's store and returns subresources by name ("binding", "scale", ...).
	// "status" comes from HasStatus and need not be returned. The name "" replaces the kind's own endpoint (a
	// Namespace is deleted in its own way): if it embeds store, names and verbs are the kind's; else they are its own.
	Install func(d Deps, store *genericregistry.Store) (map[string]rest.Storage, error)
	// Storage replaces the store for a virtual kind, which is not stored.
	Storage func(d Deps) (rest.Storage, error)
}

// Column is one printed column of `kubectl get`.
type Column struct {
	Name        string
	Type        string // "string" (default), "integer", "date", "boolean"
	Format      string
	Description string
	Priority    int32 // 0 always shown, 1 with -o wide
	// Value returns a cell: a string, bool, int64 or float64.
	Value func(obj runtime.Object) any
}

// Deps is what an Install or Storage function may use. The API server fills it.
type Deps struct {
	// Store returns another kind's store, for checks across kinds (eviction reads disruption budgets).
	// It is valid once the server runs, not during Install itself.
	Store func(schema.GroupResource) *genericregistry.Store
	// ServiceCIDRs are the Service address ranges, the primary family first.
	ServiceCIDRs []*net.IPNet
	// NodePorts is the NodePort range.
	NodePorts utilnet.PortRange
	// Healthy tells what is wrong with the database.
	Healthy func(context.Context) error
}

// Rules is a Kind's behaviour with the object's own type. Of turns it into a Kind, so that nobody writes type assertions.
type Rules[T runtime.Object] struct {
	Default              func(T)
	PrepareForCreate     func(context.Context, T)
	PrepareForUpdate     func(ctx context.Context, obj, old T)
	Validate             func(context.Context, T) field.ErrorList
	ValidateUpdate       func(ctx context.Context, obj, old T) field.ErrorList
	Warnings             func(ctx context.Context, obj, old T) []string // old is the zero T on create
	PrepareStatusUpdate  func(ctx context.Context, obj, old T)
	ValidateStatusUpdate func(ctx context.Context, obj, old T) field.ErrorList
	CheckGracefulDelete  func(context.Context, T, *metav1.DeleteOptions) bool
	Fields               func(T) fields.Set
}

// Of returns k with the behaviour of r.
func Of[T runtime.Object](k Kind, r Rules[T]) Kind {
	k.Default = one(r.Default)
	k.PrepareForCreate = ctxOne(r.PrepareForCreate)
	k.PrepareForUpdate = ctxTwo(r.PrepareForUpdate)
	k.Validate = check(r.Validate)
	k.ValidateUpdate = checkTwo(r.ValidateUpdate)
	k.PrepareStatusUpdate = ctxTwo(r.PrepareStatusUpdate)
	k.ValidateStatusUpdate = checkTwo(r.ValidateStatusUpdate)
	if r.Warnings != nil {
		k.Warnings = func(ctx context.Context, obj, old runtime.Object) []string {
			o, _ := old.(T)
			return r.Warnings(ctx, obj.(T), o)
		}
	}
	if r.CheckGracefulDelete != nil {
		k.CheckGracefulDelete = func(ctx context.Context, obj runtime.Object, options *metav1.DeleteOptions) bool {
			return r.CheckGracefulDelete(ctx, obj.(T), options)
		}
	}
	if r.Fields != nil {
		k.Fields = func(obj runtime.Object) fields.Set { return r.Fields(obj.(T)) }
	}
	return k
}

// Col returns a Column whose value is read from the object's own type.
func Col[T runtime.Object](name, typ, description string, priority int32, value func(T) any) Column {
	return Column{Name: name, Type: typ, Description: description, Priority: priority,
		Value: func(obj runtime.Object) any { return value(obj.(T)) }}
}

func one[T runtime.Object](f func(T)) func(runtime.Object) {
	if f == nil {
		return nil
	}
	return func(obj runtime.Object) { f(obj.(T)) }
}

func ctxOne[T runtime.Object](f func(context.Context, T)) func(context.Context, runtime.Object) {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, obj runtime.Object) { f(ctx, obj.(T)) }
}

func ctxTwo[T runtime.Object](f func(context.Context, T, T)) func(context.Context, runtime.Object, runtime.Object) {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, obj, old runtime.Object) { f(ctx, obj.(T), old.(T)) }
}

func check[T runtime.Object](f func(context.Context, T) field.ErrorList) func(context.Context, runtime.Object) field.ErrorList {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, obj runtime.Object) field.ErrorList { return f(ctx, obj.(T)) }
}

func checkTwo[T runtime.Object](f func(context.Context, T, T) field.ErrorList) func(context.Context, runtime.Object, runtime.Object) field.ErrorList {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, obj, old runtime.Object) field.ErrorList { return f(ctx, obj.(T), old.(T)) }
}
