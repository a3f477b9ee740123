package admission

import (
	"context"
	"slices"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

// parts allow what they list as "verb subresource namespace name".
type parts []string

func (p parts) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if slices.Contains(p, strings.Join([]string{a.GetVerb(), a.GetResource() + "/" + a.GetSubresource(), a.GetNamespace(), a.GetName()}, " ")) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func (p parts) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(p.Authorize(ctx, a))
}

func (parts) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", nil
}

// claimOf has an allocation on node n1 and what a driver says of it ("": nothing).
func claimOf(namespace string, admin bool, said string) *resourcev1.ResourceClaim {
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: namespace}}
	c.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "gpu", Exactly: &resourcev1.ExactDeviceRequest{AdminAccess: ptr.To(admin)}}}
	c.Status.Allocation = &resourcev1.AllocationResult{
		Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{Driver: "d", Pool: "p", Device: "x", AdminAccess: ptr.To(admin)}}},
		NodeSelector: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"n1"}}}}}}}
	if said != "" {
		c.Status.Devices = []resourcev1.AllocatedDeviceStatus{{Driver: "d", Pool: "p", Device: "x", NetworkData: &resourcev1.NetworkDeviceData{InterfaceName: said}}}
	}
	return c
}

func TestDevices(t *testing.T) {
	of := func(node string) user.Info {
		return &user.DefaultInfo{Name: "system:serviceaccount:ns:driver", Extra: map[string][]string{serviceaccount.NodeNameKey: {node}}}
	}
	unallocated := claimOf("ns", false, "")
	unallocated.Status.Allocation = nil
	pending := claimOf("free", true, "")
	pending.Status.Allocation = nil
	template := &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: "t", Namespace: "ns"}, Spec: resourcev1.ResourceClaimTemplateSpec{Spec: claimOf("ns", true, "").Spec}}
	binds := parts{"update resourceclaims/binding  "}
	const label = "admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace"
	for name, c := range map[string]struct {
		may  parts
		w    write
		want string
	}{
		"claim":                       {nil, write{obj: claimOf("ns", false, "")}, ""},
		"claim with admin access":     {nil, write{obj: claimOf("ns", true, "")}, "spec.devices.requests[0].adminAccess: Forbidden: " + label},
		"template with admin access":  {nil, write{obj: template}, "spec.devices.requests[0].adminAccess: Forbidden: " + label},
		"in a labelled namespace":     {nil, write{obj: claimOf("free", true, "")}, ""},
		"change of labels":            {nil, write{op: admission.Update, obj: claimOf("ns", true, ""), old: claimOf("ns", true, "")}, ""},
		"allocation with admin":       {binds, write{sub: "status", obj: claimOf("ns", true, ""), old: unallocated}, "status.allocation.devices.results[0].adminAccess: Forbidden: " + label},
		"the same, labelled":          {binds, write{sub: "status", obj: claimOf("free", true, ""), old: pending}, ""},
		"allocation":                  {binds, write{sub: "status", obj: claimOf("ns", false, ""), old: unallocated}, ""},
		"allocation by anybody":       {nil, write{sub: "status", obj: claimOf("ns", false, ""), old: unallocated}, `changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="update" permission`},
		"nothing":                     {nil, write{sub: "status", obj: claimOf("ns", false, "x"), old: claimOf("ns", false, "x")}, ""},
		"device by anybody":           {binds, write{sub: "status", obj: claimOf("ns", false, "x"), old: claimOf("ns", false, "y")}, `changing status.devices requires resource="resourceclaims/driver", verb="[arbitrary-node:update]" permission`},
		"device, from any node":       {parts{"arbitrary-node:update resourceclaims/driver ns d"}, write{sub: "status", obj: claimOf("ns", false, "x"), old: claimOf("ns", false, "")}, ""},
		"device, from its node":       {parts{"associated-node:update resourceclaims/driver ns d"}, write{sub: "status", obj: claimOf("ns", false, ""), old: claimOf("ns", false, "x"), as: of("n1")}, ""},
		"device, from another node":   {parts{"associated-node:update resourceclaims/driver ns d"}, write{sub: "status", obj: claimOf("ns", false, "x"), old: claimOf("ns", false, ""), as: of("n2")}, "arbitrary-node:update"},
		"another driver's, from node": {parts{"associated-node:update resourceclaims/driver ns e"}, write{sub: "status", obj: claimOf("ns", false, "x"), old: claimOf("ns", false, ""), as: of("n1")}, "[associated-node:update arbitrary-node:update]"},
	} {
		t.Run(name, func(t *testing.T) {
			w := c.w
			w.resource = "resource.k8s.io/resourceclaims"
			if w.sub != "" {
				w.op = admission.Update
			}
			a := w.attributes()
			ctx := apirequest.WithUser(t.Context(), a.GetUserInfo())
			ctx = apirequest.WithRequestInfo(ctx, &apirequest.RequestInfo{IsResourceRequest: true, Verb: "update", APIGroup: "resource.k8s.io", Resource: "resourceclaims",
				Subresource: w.sub, Namespace: a.GetNamespace(), Name: a.GetName()})
			refused(t, devicesOver(t, c.may).Validate(ctx, a, nil), c.want)
		})
	}
}

func devicesOver(t *testing.T, may parts) admission.ValidationInterface {
	client := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "free", Labels: map[string]string{resourcev1.DRAAdminNamespaceLabelKey: "true"}}})
	return newDevices(newCluster(deps(t, client)), may).(admission.ValidationInterface)
}

// TestPodCertificatesAreTheSigners: what becomes of a pod's request is its signer's to say.
func TestPodCertificatesAreTheSigners(t *testing.T) {
	old := &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Name: "r", Namespace: "ns"}, Spec: certificatesv1.PodCertificateRequestSpec{SignerName: "example.com/s"}}
	denied := old.DeepCopy()
	denied.Status.Conditions = []metav1.Condition{{Type: "Denied"}}
	update := func(obj runtime.Object) write {
		return write{op: admission.Update, resource: "certificates.k8s.io/podcertificaterequests", sub: "status", obj: obj, old: old}
	}
	for _, c := range []struct {
		may  signers
		obj  runtime.Object
		want string
	}{
		{nil, old, ""},
		{nil, denied, `spec.signerName: Forbidden: User "alice" is not permitted to "sign" for signer "example.com/s"`},
		{signers{"sign example.com/s"}, denied, ""},
		{signers{"sign example.com/*"}, denied, ""},
		{signers{"sign example.com/t"}, denied, "Forbidden"},
	} {
		refused(t, admit(t, newCertificateSigning(c.may), update(c.obj)), c.want)
	}
}
