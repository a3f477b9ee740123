package garbage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"

	"keelson.dev/keelson/controlplane/controller"
)

const workers = 8

// Deps are what the collector needs beyond every controller's. Metadata acts under the collector's own identity.
type Deps struct {
	controller.Deps
	Discovery discovery.CachedDiscoveryInterface
	Mapper    meta.ResettableRESTMapper
	Metadata  metadata.Interface
}

type collector struct {
	Deps
	loop  *controller.Loop
	graph *graph
}

// New returns the controller (keys are UIDs) and what keeps watching the resources that discovery shows; both must run.
func New(d Deps) (*controller.Loop, *Watcher) {
	c := &collector{Deps: d, graph: newGraph()}
	c.loop = controller.NewLoop("garbagecollector", d.Log, workers, c.reconcile)
	return c.loop, newWatcher(c)
}

func (c *collector) reconcile(ctx context.Context, key string) (time.Duration, error) {
	it, dependents, ok := c.graph.get(types.UID(key))
	if !ok {
		return 0, nil
	}
	var owners []ownerState
	if !it.deleting {
		for _, ref := range it.owners {
			state, err := c.owner(ctx, it, ref)
			if err != nil {
				return 0, err
			}
			owners = append(owners, state)
		}
	}
	return 0, c.act(ctx, it, dependents, decide(it, dependents, owners))
}

// owner finds out whether an owner exists: from the graph, or, if it is not there, from the API.
func (c *collector) owner(ctx context.Context, it item, ref metav1.OwnerReference) (ownerState, error) {
	state := ownerState{ref: ref}
	if owner, ok := c.graph.known(ref.UID); ok && (owner.namespace == "" || owner.namespace == it.namespace) {
		state.waiting = owner.deleting && owner.foreground
		return state, nil
	}
	client, namespaced, err := c.client(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind))
	if meta.IsNoMatchError(err) {
		return state, fmt.Errorf("owner %s %s of %s %s/%s has an unknown kind: not collecting", ref.Kind, ref.Name, it.kind, it.namespace, it.name)
	}
	if err != nil {
		return state, err
	}
	if namespaced && it.namespace == "" {
		return state, nil // a cluster-scoped object cannot be owned by a namespaced one: leave it alone
	}
	namespace := ""
	if namespaced {
		namespace = it.namespace
	}
	live, err := client.Namespace(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		state.absent = true
	case err != nil:
		return state, err
	default:
		state.absent = live.UID != ref.UID
		state.waiting = live.DeletionTimestamp != nil && slices.Contains(live.Finalizers, metav1.FinalizerDeleteDependents)
	}
	return state, nil
}

func (c *collector) client(gvk schema.GroupVersionKind) (metadata.Getter, bool, error) {
	mapping, err := c.Mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, false, err
	}
	return c.Metadata.Resource(mapping.Resource), mapping.Scope.Name() == meta.RESTScopeNameNamespace, nil
}

func (c *collector) act(ctx context.Context, it item, dependents []item, d decision) error {
	client := c.Metadata.Resource(it.resource).Namespace(it.namespace)
	switch d.action {
	case deleteIt, deleteForeground:
		live, err := client.Get(ctx, it.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && live.UID != it.uid {
			return nil
		}
		if err != nil {
			return err
		}
		if !sameOwners(live.OwnerReferences, it.owners) {
			return fmt.Errorf("owners of %s %s/%s changed: looking again", it.kind, it.namespace, it.name)
		}
		if d.unblock {
			if changed, err := c.unblock(ctx, it, live); changed || err != nil {
				return err // its change has it looked at again
			}
		}
		policy := policyOf(live, d.action)
		version := live.ResourceVersion
		err = client.Delete(ctx, it.name, metav1.DeleteOptions{PropagationPolicy: &policy,
			Preconditions: &metav1.Preconditions{UID: &it.uid, ResourceVersion: &version}})
		return ignoreGone(err)
	case dropOwners:
		return c.dropOwners(ctx, it, d.drop)
	case orphanDependents:
		var errs []error
		for _, dep := range dependents {
			errs = append(errs, c.dropOwners(ctx, dep, []types.UID{it.uid}))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		return c.dropFinalizer(ctx, it, metav1.FinalizerOrphanDependents)
	case finishForeground:
		return c.dropFinalizer(ctx, it, metav1.FinalizerDeleteDependents)
	case lookAtDependents:
		for _, dep := range dependents {
			c.loop.Add(string(dep.uid))
		}
	}
	return nil
}

// policyOf honours finalizers that are on the object already.
func policyOf(live *metav1.PartialObjectMetadata, a action) metav1.DeletionPropagation {
	switch {
	case slices.Contains(live.Finalizers, metav1.FinalizerOrphanDependents):
		return metav1.DeletePropagationOrphan
	case a == deleteForeground || slices.Contains(live.Finalizers, metav1.FinalizerDeleteDependents):
		return metav1.DeletePropagationForeground
	}
	return metav1.DeletePropagationBackground
}

// unblock lets the owners of an object go without waiting for it.
func (c *collector) unblock(ctx context.Context, it item, live *metav1.PartialObjectMetadata) (changed bool, err error) {
	refs := slices.Clone(live.OwnerReferences)
	for i, o := range refs {
		if o.BlockOwnerDeletion != nil && *o.BlockOwnerDeletion {
			refs[i].BlockOwnerDeletion, changed = new(bool), true
		}
	}
	if !changed {
		return false, nil
	}
	return true, c.patch(ctx, it, live, map[string]any{"ownerReferences": refs})
}

func sameOwners(a, b []metav1.OwnerReference) bool {
	return slices.EqualFunc(a, b, func(x, y metav1.OwnerReference) bool { return x.UID == y.UID })
}

// dropOwners takes references away; other references stay.
func (c *collector) dropOwners(ctx context.Context, it item, drop []types.UID) error {
	client := c.Metadata.Resource(it.resource).Namespace(it.namespace)
	live, err := client.Get(ctx, it.name, metav1.GetOptions{})
	if err != nil || live.UID != it.uid {
		return ignoreGone(err)
	}
	keep := slices.DeleteFunc(slices.Clone(live.OwnerReferences), func(o metav1.OwnerReference) bool { return slices.Contains(drop, o.UID) })
	if len(keep) == len(live.OwnerReferences) {
		return nil
	}
	return c.patch(ctx, it, live, map[string]any{"ownerReferences": keep})
}

func (c *collector) dropFinalizer(ctx context.Context, it item, finalizer string) error {
	live, err := c.Metadata.Resource(it.resource).Namespace(it.namespace).Get(ctx, it.name, metav1.GetOptions{})
	if err != nil || live.UID != it.uid {
		return ignoreGone(err)
	}
	keep := slices.DeleteFunc(slices.Clone(live.Finalizers), func(f string) bool { return f == finalizer })
	if len(keep) == len(live.Finalizers) {
		return nil
	}
	return c.patch(ctx, it, live, map[string]any{"finalizers": keep})
}

// patch replaces a list of the metadata, if the object is still the one that was read.
func (c *collector) patch(ctx context.Context, it item, live *metav1.PartialObjectMetadata, fields map[string]any) error {
	fields["uid"], fields["resourceVersion"] = live.UID, live.ResourceVersion
	data, err := json.Marshal(map[string]any{"metadata": fields})
	if err != nil {
		return err
	}
	_, err = c.Metadata.Resource(it.resource).Namespace(it.namespace).Patch(ctx, it.name, types.MergePatchType, data, metav1.PatchOptions{})
	return ignoreGone(err)
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
