package podspec

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestSourceOrder(t *testing.T) {
	v := &corev1.Volume{}
	for _, s := range append(localSources(v, nil, nil), foreignSources(v)...) {
		if !slices.Contains(sourceOrder, s.name) {
			t.Errorf("volume source %s has no place in the order", s.name)
		}
	}
	v.ConfigMap, v.AWSElasticBlockStore = &corev1.ConfigMapVolumeSource{}, &corev1.AWSElasticBlockStoreVolumeSource{}
	errs := validateVolumeSource(v, nil, field.NewPath("v")).ToAggregate()
	if errs == nil || errs.Error() != "[v.awsElasticBlockStore.volumeID: Required value, v.configMap: Forbidden: "+oneType+"]" {
		t.Errorf("a volume of two types: %v", errs)
	}
}

func TestRestartRulesWithoutPolicy(t *testing.T) {
	spec := &corev1.PodSpec{InitContainers: []corev1.Container{{Name: "i", RestartPolicyRules: []corev1.ContainerRestartRule{{Action: "odd"}}}}}
	text := newContainerRules(spec, nil).initContainers(field.NewPath("i")).ToAggregate().Error()
	if !strings.Contains(text, rulesNeedPolicy) || strings.Contains(text, "odd") {
		t.Errorf("rules of an init container without a policy: %s", text)
	}
}

func TestBundleInAProjection(t *testing.T) {
	for name, want := range map[string]string{
		"mine":              "",
		"example.com:s:one": "",
		"a/b:c":             "not a valid clustertrustbundlename: ClusterTrustBundle for signerName a/b must be named with prefix a:b:",
		":c":                `not a valid clustertrustbundlename: ClusterTrustBundle without signer name must not have ":" in its name`,
		"a:B":               "a lowercase RFC 1123 subdomain",
	} {
		v := &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: &name, Path: "p"}}}}
		errs := validateProjected(v, field.NewPath("v"))
		if (len(errs) > 0) != (want != "") || len(errs) > 0 && !strings.Contains(errs[0].Detail, want) {
			t.Errorf("bundle %q: got %v, want %q", name, errs, want)
		}
	}
}
