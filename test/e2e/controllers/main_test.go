// Package controllers sees the controllers of batch and policy work on a real server: what a user asks with kubectl and
// what comes of it.
package controllers

import (
	"os"
	"testing"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m, lab.Options{})) }
