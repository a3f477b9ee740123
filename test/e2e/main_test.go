package e2e

import (
	"os"
	"testing"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

// patience is how long a condition may take on a loaded machine before it counts as failed. Nothing is timed here.
const patience = labtest.Patience

// The tests' vocabulary.
var (
	start      = labtest.Start
	cluster    = labtest.Cluster
	ownCluster = labtest.Own
	needRoot   = labtest.NeedRoot
	kubectl    = labtest.Kubectl
	refused    = labtest.Refused
	apply      = labtest.Apply
	waitPod    = labtest.WaitPod
	eventually = labtest.Eventually
	lesson     = labtest.Lesson
	get        = labtest.Get
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m, lab.Options{})) }
