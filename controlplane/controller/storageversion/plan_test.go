package storageversion

import (
	"testing"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// of is a migration that was made at a second, with a condition if that is not empty.
func of(name string, second int64, has storagemigrationv1.MigrationConditionType) *migration {
	m := &migration{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(second, 0))}}
	if has != "" {
		m.Status.Conditions = []metav1.Condition{{Type: string(has), Status: metav1.ConditionTrue}}
	}
	return m
}

func TestTurn(t *testing.T) {
	const running, succeeded, failed = storagemigrationv1.MigrationRunning, storagemigrationv1.MigrationSucceeded, storagemigrationv1.MigrationFailed
	for _, c := range []struct {
		what string
		all  []*migration
		want string
	}{
		{"the oldest", []*migration{of("b", 2, ""), of("a", 1, ""), of("c", 3, "")}, "a"},
		{"by name", []*migration{of("b", 1, ""), of("a", 1, "")}, "a"},
		{"the one that runs", []*migration{of("a", 1, ""), of("b", 2, running)}, "b"},
		{"none of those that have ended", []*migration{of("a", 1, succeeded), of("b", 2, failed), of("c", 3, "")}, "c"},
		{"all have ended", []*migration{of("a", 1, succeeded), of("b", 2, failed)}, ""},
		{"none", nil, ""},
	} {
		got := ""
		if m := turn(c.all); m != nil {
			got = m.Name
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

func TestConditions(t *testing.T) {
	m := begun(of("a", 1, ""), "7")
	if !is(m, storagemigrationv1.MigrationRunning) || m.Status.ResourceVersion != "7" {
		t.Errorf("begun: %+v", m.Status)
	}
	if again := begun(m, "8"); again != nil {
		t.Errorf("begun again: %+v", again.Status)
	}
	for failure, want := range map[string]storagemigrationv1.MigrationConditionType{"": storagemigrationv1.MigrationSucceeded, "refused": storagemigrationv1.MigrationFailed} {
		end := over(m, failure)
		if !is(end, want) || !ended(end) || len(end.Status.Conditions) != 1 || end.Status.Conditions[0].Message != failure || end.Status.Conditions[0].Reason == "" {
			t.Errorf("%q: %+v", failure, end.Status)
		}
	}
}

func TestOutcome(t *testing.T) {
	d := &definition{}
	d.Metadata.Generation = 3
	d.Spec.Versions = append(d.Spec.Versions, struct {
		Name    string `json:"name"`
		Storage bool   `json:"storage"`
	}{"v1", false}, struct {
		Name    string `json:"name"`
		Storage bool   `json:"storage"`
	}{"v2", true})
	for _, c := range []struct {
		what    string
		began   int64 // the generation that the migration began with
		success bool
		stored  string
		reason  string
	}{
		{"the same definition", 3, true, "v2", "MigrationSucceeded"},
		{"another by now", 2, true, "", "MigrationSucceeded"},
		{"failed", 3, false, "", "MigrationFailed"},
	} {
		d.Status.Conditions = []condition{{Type: "Established", ObservedGeneration: 3}, {Type: migrating, ObservedGeneration: c.began}}
		if got, stored := d.outcome(c.success); stored != c.stored || got.Reason != c.reason || got.Status != "False" {
			t.Errorf("%s: %+v, stored %q", c.what, got, stored)
		}
	}
}
