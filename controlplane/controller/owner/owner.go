// Package owner decides who controls what a selector picks: a workload adopts objects that nobody controls, and releases
// what it controls and no longer picks.
package owner

import (
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
)

// Verdict is what one object is to a workload of its namespace.
type Verdict int

const (
	// Foreign objects are another's, or nobody's and not picked.
	Foreign Verdict = iota
	// Mine are controlled and picked.
	Mine
	// Adopt are nobody's and picked.
	Adopt
	// Release are controlled and no longer picked.
	Release
)

// Decide is pure. picked: the selector matches; fit: nothing else speaks against an adoption.
func Decide(by metav1.Object, o metav1.Object, picked, fit bool) Verdict {
	has := metav1.GetControllerOf(o)
	switch {
	case has != nil && has.UID != by.GetUID():
		return Foreign
	case has != nil && picked:
		return Mine
	case has != nil && by.GetDeletionTimestamp() == nil:
		return Release
	case has == nil && picked && fit && by.GetDeletionTimestamp() == nil && o.GetDeletionTimestamp() == nil:
		return Adopt
	}
	return Foreign
}

// Claim is a workload's hold on the objects of one kind in its namespace.
type Claim[T metav1.Object] struct {
	Owner    metav1.Object
	Kind     schema.GroupVersionKind // of Owner
	Selector labels.Selector
	// Fit says which orphans may be adopted; nil: all.
	Fit func(T) bool
	// Live reads the owner from the API, past the cache: an adoption by an owner that is being deleted would orphan the object at once.
	Live func() (metav1.Object, error)
	// Finalizer comes with an adoption and goes with a release; empty: none does.
	Finalizer string
	// Patch applies a strategic merge patch to an object of T's kind.
	Patch func(name string, patch []byte) (T, error)
}

// Take returns the objects that the owner controls, adopted ones included; objs are Ts, as an informer's index has them.
func (c Claim[T]) Take(objs []any) ([]T, error) {
	var out []T
	var errs []error
	var asked bool
	var no error // why nothing is adopted
	for _, obj := range objs {
		o := obj.(T)
		switch Decide(c.Owner, o, c.Selector.Matches(labels.Set(o.GetLabels())), c.Fit == nil || c.Fit(o)) {
		case Mine:
			out = append(out, o)
		case Adopt:
			if !asked {
				asked, no = true, c.stays()
				errs = append(errs, no)
			}
			if no != nil {
				continue
			}
			adopted, err := c.Patch(o.GetName(), c.patch(o, true))
			if err == nil {
				out = append(out, adopted)
			} else if !apierrors.IsNotFound(err) {
				errs = append(errs, fmt.Errorf("adopt %s/%s: %w", o.GetNamespace(), o.GetName(), err))
			}
		case Release:
			// Not found: gone; invalid: another of its name.
			if _, err := c.Patch(o.GetName(), c.patch(o, false)); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) {
				errs = append(errs, fmt.Errorf("release %s/%s: %w", o.GetNamespace(), o.GetName(), err))
			}
		}
	}
	return out, errors.Join(errs...)
}

// stays is nil if the owner is there and is to stay.
func (c Claim[T]) stays() error {
	fresh, err := c.Live()
	if err != nil {
		return err
	}
	if fresh.GetUID() != c.Owner.GetUID() || fresh.GetDeletionTimestamp() != nil {
		return fmt.Errorf("%s %s/%s is being deleted: it adopts nothing", c.Kind.Kind, c.Owner.GetNamespace(), c.Owner.GetName())
	}
	return nil
}

func (c Claim[T]) patch(o T, add bool) []byte {
	ref := map[string]any{"$patch": "delete", "uid": c.Owner.GetUID()}
	if add {
		ref = map[string]any{"apiVersion": c.Kind.GroupVersion().String(), "kind": c.Kind.Kind, "name": c.Owner.GetName(),
			"uid": c.Owner.GetUID(), "controller": true, "blockOwnerDeletion": true}
	}
	meta := map[string]any{"uid": o.GetUID(), "ownerReferences": []any{ref}}
	if c.Finalizer != "" {
		list := "finalizers"
		if !add {
			list = "$deleteFromPrimitiveList/" + list
		}
		meta[list] = []string{c.Finalizer}
	}
	patch, _ := json.Marshal(map[string]any{"metadata": meta}) // strings and booleans: it cannot fail
	return patch
}

// Keys lists the workloads in an orphan's namespace whose selector picks it: each might adopt it. Nothing for other objects.
// The indexer has cache.NamespaceIndex; selector gives nil for a selector that cannot be read.
func Keys(workloads cache.Indexer, o metav1.Object, selector func(workload any) labels.Selector) (keys []string) {
	if metav1.GetControllerOf(o) != nil {
		return nil
	}
	objs, err := workloads.ByIndex(cache.NamespaceIndex, o.GetNamespace())
	if err != nil {
		return nil
	}
	for _, w := range objs {
		if s := selector(w); s != nil && !s.Empty() && s.Matches(labels.Set(o.GetLabels())) {
			keys = append(keys, o.GetNamespace()+"/"+w.(metav1.Object).GetName())
		}
	}
	return keys
}

// Selector reads a workload's selector; nil if it cannot be read.
func Selector(s *metav1.LabelSelector) labels.Selector {
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil
	}
	return out
}
