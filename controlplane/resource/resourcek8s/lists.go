package resourcek8s

import (
	"context"

	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
)

// list checks the items of a list; of one that is too long nothing else is said.
func list[T any](items []T, most int, path *field.Path, item func(*T, *field.Path) field.ErrorList) field.ErrorList {
	if len(items) > most {
		return field.ErrorList{field.TooMany(path, len(items), most)}
	}
	var errs field.ErrorList
	for i := range items {
		errs = append(errs, item(&items[i], path.Index(i))...)
	}
	return errs
}

// set is a list no two of whose items are the same.
func set[T any](items []T, most int, path *field.Path, same validate.MatchFunc[*T], item func(*T, *field.Path) field.ErrorList) field.ErrorList {
	errs := list(items, most, path, item)
	if len(items) > most {
		return errs
	}
	return append(errs, unique(items, path, same)...)
}

func unique[T any](items []T, path *field.Path, same validate.MatchFunc[*T]) field.ErrorList {
	return check.Declared(validate.ValSliceUnique(context.Background(), operation.Operation{}, path, items, nil, same))
}

// declared checks a value by rules that upstream declares with the type of a field: their words are not those of its functions.
func declared[T any](v *T, path *field.Path, rules ...validate.ValidateFunc[*T]) field.ErrorList {
	var errs field.ErrorList
	for _, rule := range rules {
		errs = append(errs, rule(context.Background(), operation.Operation{}, path, v, nil)...)
	}
	return errs
}

// required is declared for a value that must be there.
func required[T comparable](v *T, path *field.Path, rules ...validate.ValidateFunc[*T]) field.ErrorList {
	if errs := declared(v, path, validate.RequiredValue); len(errs) > 0 {
		return errs
	}
	return declared(v, path, rules...)
}

func most(n, limit int, path *field.Path) field.ErrorList {
	if n > limit {
		return field.ErrorList{field.TooMany(path, n, limit)}
	}
	return nil
}
