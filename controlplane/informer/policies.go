package informer

import (
	admissionregistrationapi "k8s.io/api/admissionregistration/v1"
	certificatesapi "k8s.io/api/certificates/v1"
	flowcontrolapi "k8s.io/api/flowcontrol/v1"
	networkingapi "k8s.io/api/networking/v1"
	policyapi "k8s.io/api/policy/v1"
	rbacapi "k8s.io/api/rbac/v1"
	admissionregistrationgroup "k8s.io/client-go/informers/admissionregistration"
	admissionregistrationinformers "k8s.io/client-go/informers/admissionregistration/v1"
	certificatesgroup "k8s.io/client-go/informers/certificates"
	certificatesinformers "k8s.io/client-go/informers/certificates/v1"
	flowcontrolgroup "k8s.io/client-go/informers/flowcontrol"
	flowcontrolinformers "k8s.io/client-go/informers/flowcontrol/v1"
	networkinggroup "k8s.io/client-go/informers/networking"
	networkinginformers "k8s.io/client-go/informers/networking/v1"
	policygroup "k8s.io/client-go/informers/policy"
	policyinformers "k8s.io/client-go/informers/policy/v1"
	rbacgroup "k8s.io/client-go/informers/rbac"
	rbacinformers "k8s.io/client-go/informers/rbac/v1"
	admissionregistrationlisters "k8s.io/client-go/listers/admissionregistration/v1"
	certificateslisters "k8s.io/client-go/listers/certificates/v1"
	flowcontrollisters "k8s.io/client-go/listers/flowcontrol/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	policylisters "k8s.io/client-go/listers/policy/v1"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"
)

type admissionregistration struct {
	admissionregistrationgroup.Interface
	f *factory
}

// Admissionregistration implements informers.SharedInformerFactory.
func (f *factory) Admissionregistration() admissionregistrationgroup.Interface {
	return admissionregistration{f: f}
}

func (g admissionregistration) V1() admissionregistrationinformers.Interface {
	return admissionregistrationV1{f: g.f}
}

type admissionregistrationV1 struct {
	admissionregistrationinformers.Interface
	f *factory
}

func (g admissionregistrationV1) MutatingAdmissionPolicies() admissionregistrationinformers.TypedMutatingAdmissionPolicyInformer {
	return kindOf[admissionregistrationinformers.MutatingAdmissionPolicyIndexInformer](g.f, &admissionregistrationapi.MutatingAdmissionPolicy{}, admissionregistrationlisters.NewMutatingAdmissionPolicyLister)
}
func (g admissionregistrationV1) MutatingAdmissionPolicyBindings() admissionregistrationinformers.TypedMutatingAdmissionPolicyBindingInformer {
	return kindOf[admissionregistrationinformers.MutatingAdmissionPolicyBindingIndexInformer](g.f, &admissionregistrationapi.MutatingAdmissionPolicyBinding{}, admissionregistrationlisters.NewMutatingAdmissionPolicyBindingLister)
}
func (g admissionregistrationV1) MutatingWebhookConfigurations() admissionregistrationinformers.TypedMutatingWebhookConfigurationInformer {
	return kindOf[admissionregistrationinformers.MutatingWebhookConfigurationIndexInformer](g.f, &admissionregistrationapi.MutatingWebhookConfiguration{}, admissionregistrationlisters.NewMutatingWebhookConfigurationLister)
}
func (g admissionregistrationV1) ValidatingAdmissionPolicies() admissionregistrationinformers.TypedValidatingAdmissionPolicyInformer {
	return kindOf[admissionregistrationinformers.ValidatingAdmissionPolicyIndexInformer](g.f, &admissionregistrationapi.ValidatingAdmissionPolicy{}, admissionregistrationlisters.NewValidatingAdmissionPolicyLister)
}
func (g admissionregistrationV1) ValidatingAdmissionPolicyBindings() admissionregistrationinformers.TypedValidatingAdmissionPolicyBindingInformer {
	return kindOf[admissionregistrationinformers.ValidatingAdmissionPolicyBindingIndexInformer](g.f, &admissionregistrationapi.ValidatingAdmissionPolicyBinding{}, admissionregistrationlisters.NewValidatingAdmissionPolicyBindingLister)
}
func (g admissionregistrationV1) ValidatingWebhookConfigurations() admissionregistrationinformers.TypedValidatingWebhookConfigurationInformer {
	return kindOf[admissionregistrationinformers.ValidatingWebhookConfigurationIndexInformer](g.f, &admissionregistrationapi.ValidatingWebhookConfiguration{}, admissionregistrationlisters.NewValidatingWebhookConfigurationLister)
}

type certificates struct {
	certificatesgroup.Interface
	f *factory
}

// Certificates implements informers.SharedInformerFactory.
func (f *factory) Certificates() certificatesgroup.Interface { return certificates{f: f} }

func (g certificates) V1() certificatesinformers.Interface { return certificatesV1{f: g.f} }

type certificatesV1 struct {
	certificatesinformers.Interface
	f *factory
}

func (g certificatesV1) CertificateSigningRequests() certificatesinformers.TypedCertificateSigningRequestInformer {
	return kindOf[certificatesinformers.CertificateSigningRequestIndexInformer](g.f, &certificatesapi.CertificateSigningRequest{}, certificateslisters.NewCertificateSigningRequestLister)
}
func (g certificatesV1) ClusterTrustBundles() certificatesinformers.TypedClusterTrustBundleInformer {
	return kindOf[certificatesinformers.ClusterTrustBundleIndexInformer](g.f, &certificatesapi.ClusterTrustBundle{}, certificateslisters.NewClusterTrustBundleLister)
}
func (g certificatesV1) PodCertificateRequests() certificatesinformers.TypedPodCertificateRequestInformer {
	return kindOf[certificatesinformers.PodCertificateRequestIndexInformer](g.f, &certificatesapi.PodCertificateRequest{}, certificateslisters.NewPodCertificateRequestLister)
}

type flowcontrol struct {
	flowcontrolgroup.Interface
	f *factory
}

// Flowcontrol implements informers.SharedInformerFactory.
func (f *factory) Flowcontrol() flowcontrolgroup.Interface { return flowcontrol{f: f} }

func (g flowcontrol) V1() flowcontrolinformers.Interface { return flowcontrolV1{f: g.f} }

type flowcontrolV1 struct {
	flowcontrolinformers.Interface
	f *factory
}

func (g flowcontrolV1) FlowSchemas() flowcontrolinformers.TypedFlowSchemaInformer {
	return kindOf[flowcontrolinformers.FlowSchemaIndexInformer](g.f, &flowcontrolapi.FlowSchema{}, flowcontrollisters.NewFlowSchemaLister)
}
func (g flowcontrolV1) PriorityLevelConfigurations() flowcontrolinformers.TypedPriorityLevelConfigurationInformer {
	return kindOf[flowcontrolinformers.PriorityLevelConfigurationIndexInformer](g.f, &flowcontrolapi.PriorityLevelConfiguration{}, flowcontrollisters.NewPriorityLevelConfigurationLister)
}

type networking struct {
	networkinggroup.Interface
	f *factory
}

// Networking implements informers.SharedInformerFactory.
func (f *factory) Networking() networkinggroup.Interface { return networking{f: f} }

func (g networking) V1() networkinginformers.Interface { return networkingV1{f: g.f} }

type networkingV1 struct {
	networkinginformers.Interface
	f *factory
}

func (g networkingV1) IPAddresses() networkinginformers.TypedIPAddressInformer {
	return kindOf[networkinginformers.IPAddressIndexInformer](g.f, &networkingapi.IPAddress{}, networkinglisters.NewIPAddressLister)
}
func (g networkingV1) Ingresses() networkinginformers.TypedIngressInformer {
	return kindOf[networkinginformers.IngressIndexInformer](g.f, &networkingapi.Ingress{}, networkinglisters.NewIngressLister)
}
func (g networkingV1) IngressClasses() networkinginformers.TypedIngressClassInformer {
	return kindOf[networkinginformers.IngressClassIndexInformer](g.f, &networkingapi.IngressClass{}, networkinglisters.NewIngressClassLister)
}
func (g networkingV1) NetworkPolicies() networkinginformers.TypedNetworkPolicyInformer {
	return kindOf[networkinginformers.NetworkPolicyIndexInformer](g.f, &networkingapi.NetworkPolicy{}, networkinglisters.NewNetworkPolicyLister)
}
func (g networkingV1) ServiceCIDRs() networkinginformers.TypedServiceCIDRInformer {
	return kindOf[networkinginformers.ServiceCIDRIndexInformer](g.f, &networkingapi.ServiceCIDR{}, networkinglisters.NewServiceCIDRLister)
}

type policy struct {
	policygroup.Interface
	f *factory
}

// Policy implements informers.SharedInformerFactory.
func (f *factory) Policy() policygroup.Interface { return policy{f: f} }

func (g policy) V1() policyinformers.Interface { return policyV1{f: g.f} }

type policyV1 struct {
	policyinformers.Interface
	f *factory
}

func (g policyV1) PodDisruptionBudgets() policyinformers.TypedPodDisruptionBudgetInformer {
	return kindOf[policyinformers.PodDisruptionBudgetIndexInformer](g.f, &policyapi.PodDisruptionBudget{}, policylisters.NewPodDisruptionBudgetLister)
}

type rbac struct {
	rbacgroup.Interface
	f *factory
}

// Rbac implements informers.SharedInformerFactory.
func (f *factory) Rbac() rbacgroup.Interface { return rbac{f: f} }

func (g rbac) V1() rbacinformers.Interface { return rbacV1{f: g.f} }

type rbacV1 struct {
	rbacinformers.Interface
	f *factory
}

func (g rbacV1) ClusterRoles() rbacinformers.TypedClusterRoleInformer {
	return kindOf[rbacinformers.ClusterRoleIndexInformer](g.f, &rbacapi.ClusterRole{}, rbaclisters.NewClusterRoleLister)
}
func (g rbacV1) ClusterRoleBindings() rbacinformers.TypedClusterRoleBindingInformer {
	return kindOf[rbacinformers.ClusterRoleBindingIndexInformer](g.f, &rbacapi.ClusterRoleBinding{}, rbaclisters.NewClusterRoleBindingLister)
}
func (g rbacV1) Roles() rbacinformers.TypedRoleInformer {
	return kindOf[rbacinformers.RoleIndexInformer](g.f, &rbacapi.Role{}, rbaclisters.NewRoleLister)
}
func (g rbacV1) RoleBindings() rbacinformers.TypedRoleBindingInformer {
	return kindOf[rbacinformers.RoleBindingIndexInformer](g.f, &rbacapi.RoleBinding{}, rbaclisters.NewRoleBindingLister)
}
