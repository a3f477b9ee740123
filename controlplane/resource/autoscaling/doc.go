// Package autoscaling describes the group autoscaling: HorizontalPodAutoscaler in v2, which is stored, and in v1,
// which is converted: what v1 has no fields for travels in annotations and comes back whole. The group also owns the
// Scale kind, which is only ever a subresource (package scale).
package autoscaling
