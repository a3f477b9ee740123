package controller

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Patcher returns a function that applies a strategic merge patch to an object that a typed client serves, by name.
func Patcher[T any](ctx context.Context, client interface {
	Patch(context.Context, string, types.PatchType, []byte, metav1.PatchOptions, ...string) (T, error)
}) func(name string, patch []byte) (T, error) {
	return func(name string, patch []byte) (T, error) {
		return client.Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	}
}
