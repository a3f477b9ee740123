package storagemigration

import (
	"testing"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(), resourcetest.Row{Plural: "storageversionmigrations", Kind: "StorageVersionMigration"})
}

func TestValidate(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "StorageVersionMigration")
	m := &migration{Spec: storagemigrationv1.StorageVersionMigrationSpec{Resource: metav1.GroupResource{Group: "apps", Resource: "deployments"}}}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), m))
	resourcetest.CheckErrors(t, k.Validate(t.Context(), &migration{}), "spec.resource.resource: Required value: resource is required to be set")
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), m, &migration{}), "spec: Invalid value")
	done := m.DeepCopy()
	done.Status = storagemigrationv1.StorageVersionMigrationStatus{ResourceVersion: "5", Conditions: []metav1.Condition{
		{Type: "Succeeded", Status: "True", Reason: "R", LastTransitionTime: metav1.Unix(1, 0)}}}
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), done, m))
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), m, done), "cannot be set to false once it is true", "status.resourceVersion: Invalid value")
	names, cells := resourcetest.Cells(k, m)
	if names != "Name|Resource|Status" || cells[1] != "deployments.apps" {
		t.Errorf("columns %s, cells %v", names, cells)
	}
}
