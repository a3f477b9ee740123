package apiserver

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"keelson.dev/keelson/controlplane/resource"
)

// table prints objects of a kind by its columns: NAME, the kind's own, AGE.
type table struct {
	kind    *resource.Kind
	columns []metav1.TableColumnDefinition
}

func newTable(k *resource.Kind) table {
	doc := metav1.ObjectMeta{}.SwaggerDoc()
	cols := []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name", Description: doc["name"]}}
	for _, c := range k.Columns {
		typ := c.Type
		if typ == "" {
			typ = "string"
		}
		cols = append(cols, metav1.TableColumnDefinition{Name: c.Name, Type: typ, Format: c.Format, Description: c.Description, Priority: c.Priority})
	}
	if k.NoAge {
		cols = cols[1:]
	} else {
		cols = ageLast(cols, doc["creationTimestamp"])
	}
	return table{kind: k, columns: cols}
}

// ageLast puts AGE after the columns that are always shown: those of -o wide come behind it, as upstream prints them.
func ageLast(cols []metav1.TableColumnDefinition, doc string) []metav1.TableColumnDefinition {
	age := metav1.TableColumnDefinition{Name: "Age", Type: "string", Description: doc}
	at := len(cols)
	for at > 1 && cols[at-1].Priority > 0 {
		at--
	}
	out := append([]metav1.TableColumnDefinition{}, cols[:at]...)
	return append(append(out, age), cols[at:]...)
}

func (t table) ConvertToTable(_ context.Context, object, options runtime.Object) (*metav1.Table, error) {
	var out metav1.Table
	if o, ok := options.(*metav1.TableOptions); !ok || !o.NoHeaders {
		out.ColumnDefinitions = t.columns
	}
	row := func(obj runtime.Object) error {
		cells, err := t.cells(obj)
		out.Rows = append(out.Rows, metav1.TableRow{Cells: cells, Conditions: t.ended(obj), Object: runtime.RawExtension{Object: obj}})
		return err
	}
	if meta.IsListType(object) {
		if err := meta.EachListItem(object, row); err != nil {
			return nil, err
		}
		if t.kind.Order != nil {
			slices.SortStableFunc(out.Rows, func(a, b metav1.TableRow) int { return t.kind.Order(a.Object.Object, b.Object.Object) })
		}
	} else if err := row(object); err != nil {
		return nil, err
	}
	if m, err := meta.ListAccessor(object); err == nil {
		out.ResourceVersion, out.Continue, out.RemainingItemCount = m.GetResourceVersion(), m.GetContinue(), m.GetRemainingItemCount()
	} else if m, err := meta.CommonAccessor(object); err == nil {
		out.ResourceVersion = m.GetResourceVersion()
	}
	return &out, nil
}

func (t table) ended(obj runtime.Object) []metav1.TableRowCondition {
	if t.kind.Ended == nil {
		return nil
	}
	reason, message := t.kind.Ended(obj)
	if reason == "" {
		return nil
	}
	return []metav1.TableRowCondition{{Type: metav1.RowCompleted, Status: metav1.ConditionTrue, Reason: reason, Message: message}}
}

func (t table) cells(obj runtime.Object) ([]any, error) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, fmt.Errorf("print %T: %w", obj, err)
	}
	cells := make([]any, 0, len(t.columns))
	own := t.kind.Columns
	for i, c := range t.columns {
		switch {
		case !t.kind.NoAge && i == 0:
			cells = append(cells, m.GetName())
		case !t.kind.NoAge && c.Name == "Age" && len(own) < len(t.columns)-i:
			cells = append(cells, age(m.GetCreationTimestamp(), time.Now()))
		default:
			cells = append(cells, own[0].Value(obj))
			own = own[1:]
		}
	}
	return cells, nil
}

func age(t metav1.Time, now time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t.Time))
}
