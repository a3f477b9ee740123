// Package storageversion rewrites all objects of a resource as they are stored today, when a StorageVersionMigration asks for it
// (KEP-4192): after another version of a kind has become the stored one, or Secrets are encrypted with another key.
//
// An object is rewritten by a patch without content: the store writes what it would write otherwise than it is. Its UID and
// resourceVersion go with the patch, so that an object that was changed, deleted or made anew meanwhile, and so written, is left
// alone. Of a resource's migrations one runs at a time; one that is cut short begins anew. plan.go is pure.
package storageversion

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

const (
	perPage = 500
	// appear is how long a migration waits for its resource, whose definition may come after it.
	appear  = time.Minute
	manager = "migration-runner-controller"
)

// Deps are what the controller needs beyond every controller's.
type Deps struct {
	controller.Deps
	Discovery discovery.ServerResourcesInterface
	Metadata  metadata.Interface // reads and patches objects of any kind
}

type migrator struct {
	Deps
	migrations cache.SharedIndexInformer
}

// New returns the controller; keys are resources, "deployments.apps".
func New(d Deps) (*controller.Loop, error) {
	informer, err := d.Informers.ForResource(storagemigrationv1.SchemeGroupVersion.WithResource("storageversionmigrations"))
	if err != nil {
		return nil, err
	}
	m := &migrator{Deps: d, migrations: informer.Informer()}
	loop := controller.NewLoop("storage-version-migrator", d.Log, 1, m.reconcile)
	return loop, controller.Watch(loop, m.migrations, func(o, _ *migration) []string { return []string{resourceOf(o).String()} })
}

func resourceOf(m *migration) schema.GroupResource {
	return schema.GroupResource{Group: m.Spec.Resource.Group, Resource: m.Spec.Resource.Resource}
}

func (m *migrator) reconcile(ctx context.Context, key string) (time.Duration, error) {
	var all []*migration
	for _, obj := range m.migrations.GetStore().List() {
		if o := obj.(*migration); resourceOf(o).String() == key {
			all = append(all, o)
		}
	}
	o := turn(all)
	if o == nil {
		return 0, nil
	}
	gvr, known, err := m.find(resourceOf(o))
	if err != nil {
		return 0, fmt.Errorf("find resource %s: %w", key, err)
	}
	if !known {
		if left := appear - time.Since(o.CreationTimestamp.Time); left > 0 {
			return min(left, time.Second), nil
		}
		return 0, m.write(ctx, over(o, "resource not found"))
	}
	return 0, m.run(ctx, o, gvr)
}

// find returns the preferred version of a resource that can be listed and patched; false: there is none.
func (m *migrator) find(r schema.GroupResource) (schema.GroupVersionResource, bool, error) {
	lists, err := m.Discovery.ServerPreferredResources()
	for _, list := range lists {
		gv, parseErr := schema.ParseGroupVersion(list.GroupVersion)
		if parseErr != nil || gv.Group != r.Group {
			continue
		}
		for _, found := range list.APIResources {
			if found.Name == r.Resource {
				return gv.WithResource(r.Resource), true, nil // others that do not answer do not matter
			}
		}
	}
	return schema.GroupVersionResource{}, false, err
}

func (m *migrator) run(ctx context.Context, o *migration, gvr schema.GroupVersionResource) error {
	first, err := m.Metadata.Resource(gvr).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return fmt.Errorf("list %s: %w", gvr.GroupResource(), err)
	}
	definition, err := m.definition(ctx, gvr.GroupResource())
	if err != nil {
		return err
	}
	if next := begun(o, first.ResourceVersion); next != nil {
		if err := definition.begin(ctx, o.Name); err != nil {
			return err
		}
		// The informer tells of the write; an older copy of it would be refused.
		if o, err = m.Client.StoragemigrationV1().StorageVersionMigrations().UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
			return gone(err)
		}
	}
	failure, err := m.rewrite(ctx, gvr)
	if err != nil {
		return err // tried again, from the beginning
	}
	if err := definition.end(ctx, failure == ""); err != nil {
		return err
	}
	return m.write(ctx, over(o, failure))
}

// rewrite touches every object. A failure is one that another try would not mend.
func (m *migrator) rewrite(ctx context.Context, gvr schema.GroupVersionResource) (failure string, err error) {
	client := m.Metadata.Resource(gvr)
	for page := (metav1.ListOptions{Limit: perPage}); ; {
		list, err := client.List(ctx, page)
		if err != nil {
			return "", fmt.Errorf("list %s: %w", gvr.GroupResource(), err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": o.UID, "resourceVersion": o.ResourceVersion}})
			if err != nil {
				return "", err
			}
			_, err = client.Namespace(o.Namespace).Patch(ctx, o.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager})
			switch {
			case err == nil, apierrors.IsNotFound(err), apierrors.IsConflict(err):
			case ctx.Err() != nil, apierrors.IsTooManyRequests(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsServiceUnavailable(err):
				return "", err
			default:
				return fmt.Sprintf("%s %s/%s: %v", gvr.GroupResource(), o.Namespace, o.Name, err), nil
			}
		}
		if page.Continue = list.Continue; page.Continue == "" {
			return "", nil
		}
	}
}

func (m *migrator) write(ctx context.Context, o *migration) error {
	_, err := m.Client.StoragemigrationV1().StorageVersionMigrations().UpdateStatus(ctx, o, metav1.UpdateOptions{})
	return gone(err)
}

func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
