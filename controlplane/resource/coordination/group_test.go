package coordination

import (
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(), resourcetest.Row{Plural: "leases", Kind: "Lease", Namespaced: true})
}

func TestValidateLease(t *testing.T) {
	l := &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{
		LeaseDurationSeconds: ptr.To[int32](0),
		LeaseTransitions:     ptr.To[int32](-1),
		PreferredHolder:      ptr.To("b"),
	}}
	resourcetest.CheckErrors(t, resourcetest.Kind(t, Group(), "Lease").Validate(t.Context(), l),
		"spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
		"spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
		"spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined")
}

func TestElectionFieldsAreOff(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "Lease")
	l := &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{Strategy: ptr.To(coordinationv1.OldestEmulationVersion), PreferredHolder: ptr.To("b")}}
	old := l.DeepCopy()
	k.PrepareForUpdate(t.Context(), l, old)
	if l.Spec.Strategy == nil || l.Spec.PreferredHolder == nil {
		t.Errorf("an update dropped what was there: %+v", l.Spec)
	}
	k.PrepareForCreate(t.Context(), l)
	if l.Spec.Strategy != nil || l.Spec.PreferredHolder != nil {
		t.Errorf("of a new lease: %+v", l.Spec)
	}
}

func TestColumns(t *testing.T) {
	l := &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To("n1")}}
	names, cells := resourcetest.Cells(resourcetest.Kind(t, Group(), "Lease"), l)
	if names != "Holder|Age" || cells[0] != "n1" {
		t.Errorf("columns %s, cells %v", names, cells)
	}
}
