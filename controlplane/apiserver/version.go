package apiserver

import (
	"runtime"

	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/util/compatibility"
	basecompatibility "k8s.io/component-base/compatibility"
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

func (v effectiveVersion) Info() *apiversion.Info {
	return &apiversion.Info{
		Major: "1", Minor: "37", EmulationMajor: "1", EmulationMinor: "37", MinCompatibilityMajor: "1", MinCompatibilityMinor: "36",
		GitVersion: GitVersion, GitTreeState: "clean",
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
}
