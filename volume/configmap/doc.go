// Package configmap says which files a ConfigMap is in a volume. Pure.
package configmap
