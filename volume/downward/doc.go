// Package downward says what a pod is told about itself: fields and resources, as files of a volume or as values of environment
// variables. Pure.
package downward
