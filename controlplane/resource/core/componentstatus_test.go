package core

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/fields"
)

func TestComponentStatuses(t *testing.T) {
	var wrong error
	c := componentStatuses{func(context.Context) error { return wrong }}
	rows := func() (out [][]any) {
		list, err := c.List(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		table, err := c.ConvertToTable(t.Context(), list, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range table.Rows {
			out = append(out, r.Cells)
		}
		return out
	}
	if got := rows(); len(got) != 3 || got[2][0] != "etcd-0" || got[2][1] != "Healthy" || got[2][2] != "ok" {
		t.Errorf("all is well: %v", got)
	}
	wrong = errors.New("the disk is gone")
	if got := rows(); got[0][1] != "Healthy" || got[2][1] != "Unhealthy" || got[2][3] != "the disk is gone" {
		t.Errorf("the database is not: %v", got)
	}
	one, err := c.List(t.Context(), &internalversion.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", "scheduler")})
	if err != nil || len(one.(*corev1.ComponentStatusList).Items) != 1 {
		t.Errorf("by name: %v, %v", one, err)
	}
	if _, err := c.Get(t.Context(), "etcd-1", nil); !apierrors.IsNotFound(err) {
		t.Errorf("one that is not there: %v", err)
	}
}
