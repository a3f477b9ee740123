// Package metrics is the API group metrics.k8s.io: what nodes and pods use now, for `kubectl top` and autoscalers.
// Nothing is stored: an answer is worked out of two looks at the kubelets, as metrics-server does elsewhere.
package metrics
