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
