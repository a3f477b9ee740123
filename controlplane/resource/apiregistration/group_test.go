package apiregistration

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(), resourcetest.Row{Plural: "apiservices", Kind: "APIService", Categories: "api-extensions"})
}

func TestAPIService(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "APIService")
	remote := &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: "v1.g.test"},
		Spec: apiregistrationv1.APIServiceSpec{Group: "g.test", Version: "v1", GroupPriorityMinimum: 1, VersionPriority: 1,
			InsecureSkipTLSVerify: true, Service: &apiregistrationv1.ServiceReference{Namespace: "ns", Name: "svc"}},
	}
	want := remote.DeepCopy()
	want.Spec.Service.Port = ptr.To(int32(443))
	resourcetest.CheckDefaults(t, k, remote, want)
	resourcetest.CheckErrors(t, k.Validate(t.Context(), want))
	k.PrepareForCreate(t.Context(), want)
	if available(want) != "Unknown" || service(want) != "ns/svc" {
		t.Errorf("a new remote APIService shows %v %v", available(want), service(want))
	}

	local := want.DeepCopy()
	local.Spec.Service, local.Spec.InsecureSkipTLSVerify = nil, false
	k.PrepareForCreate(t.Context(), local)
	if available(local) != "True" || service(local) != "Local" {
		t.Errorf("a local APIService shows %v %v", available(local), service(local))
	}

	bad := want.DeepCopy()
	bad.Name, bad.Spec.CABundle = "v2.g.test", []byte("x")
	resourcetest.CheckErrors(t, k.Validate(t.Context(), bad), "metadata.name", "spec.insecureSkipTLSVerify")
}
