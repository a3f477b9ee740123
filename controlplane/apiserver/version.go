package apiserver

import (
	"context"
	"runtime"
	"sync"

	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/component-base/metrics/prometheus/compatversion"
)

// GitVersion is what /version and kubectl say of the server.
const GitVersion = "v1.37.2+keelson1"

// effectiveVersion is the library's, with our own name on it.
type effectiveVersion struct {
	basecompatibility.EffectiveVersion
}

func newVersion() basecompatibility.EffectiveVersion {
	return effectiveVersion{compatibility.DefaultBuildEffectiveVersion()}
}

// publishVersion shows in the metrics what this server is compatible with, and which features it has.
var publishVersion = sync.OnceFunc(func() {
	v := newVersion()
	compatversion.RecordCompatVersionInfo(context.Background(), basecompatibility.DefaultKubeComponent,
		v.BinaryVersion().String(), v.EmulationVersion().String(), v.MinCompatibilityVersion().String())
	utilfeature.DefaultMutableFeatureGate.AddMetrics()
})

func (v effectiveVersion) Info() *apiversion.Info {
	return &apiversion.Info{
		Major: "1", Minor: "37", EmulationMajor: "1", EmulationMinor: "37", MinCompatibilityMajor: "1", MinCompatibilityMinor: "36",
		GitVersion: GitVersion, GitTreeState: "clean",
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
}
