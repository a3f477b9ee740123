package api

import (
	"os"
	"testing"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m, lab.Options{})) }
