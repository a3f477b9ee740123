package main

import (
	"errors"
	"os"
	"path/filepath"
)

// scrub deletes everything in a folder, itself not: the pod that recycles a volume runs it.
func scrub(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}
