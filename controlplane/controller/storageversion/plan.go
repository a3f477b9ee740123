package storageversion

import (
	"cmp"
	"slices"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type migration = storagemigrationv1.StorageVersionMigration

// turn is the migration of a resource whose turn it is: the one that runs, else the oldest; nil if all have ended.
func turn(all []*migration) *migration {
	left := slices.DeleteFunc(slices.Clone(all), ended)
	if len(left) == 0 {
		return nil
	}
	return slices.MinFunc(left, func(a, b *migration) int {
		if x, y := is(a, storagemigrationv1.MigrationRunning), is(b, storagemigrationv1.MigrationRunning); x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}

func ended(m *migration) bool {
	return is(m, storagemigrationv1.MigrationSucceeded) || is(m, storagemigrationv1.MigrationFailed)
}

func is(m *migration, t storagemigrationv1.MigrationConditionType) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(t))
}

// begun is a migration that runs, from version on; nil if it does already.
func begun(m *migration, version string) *migration {
	next := m.DeepCopy()
	changed := meta.SetStatusCondition(&next.Status.Conditions, metav1.Condition{Type: string(storagemigrationv1.MigrationRunning), Status: metav1.ConditionTrue,
		Reason: "MigrationRunning", Message: "The migration is running"})
	if next.Status.ResourceVersion == "" {
		next.Status.ResourceVersion, changed = version, true
	}
	if !changed {
		return nil
	}
	return next
}

// over is a migration that has ended; failure is why it did not succeed, empty if it did.
func over(m *migration, failure string) *migration {
	next := m.DeepCopy()
	meta.RemoveStatusCondition(&next.Status.Conditions, string(storagemigrationv1.MigrationRunning))
	end := metav1.Condition{Type: string(storagemigrationv1.MigrationSucceeded), Status: metav1.ConditionTrue, Reason: "StorageVersionMigrationSucceeded"}
	if failure != "" {
		end.Type, end.Reason, end.Message = string(storagemigrationv1.MigrationFailed), "StorageVersionMigrationFailed", failure
	}
	meta.SetStatusCondition(&next.Status.Conditions, end)
	return next
}
