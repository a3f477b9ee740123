// Package podspec is what every kind that carries a pod specification shares: upstream's defaults and
// upstream's validation of corev1.PodSpec and corev1.PodTemplateSpec, with its field paths and messages.
//
// Everything here is a function of its arguments. Default functions change the object they are given and
// nothing else; they are idempotent. Validation functions change nothing and never panic, whatever was decoded.
//
// A template that is unchanged is not checked again, so that what an older release has let in stays updatable.
//
// Source of the rules: Kubernetes 1.37, with its feature gates at their defaults.
package podspec
