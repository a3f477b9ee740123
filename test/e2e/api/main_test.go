package api

import (
	"os"
	"testing"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

func TestMain(m *testing.M) {
	code := labtest.Main(m, lab.Options{})
	if helmDir != "" {
		_ = os.RemoveAll(helmDir)
	}
	os.Exit(code)
}
