// Package secret says which files a Secret is in a volume. Pure.
package secret
