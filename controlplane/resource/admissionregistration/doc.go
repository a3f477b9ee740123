// Package admissionregistration describes the group admissionregistration.k8s.io: webhooks and CEL policies by which
// users extend admission.
//
// Expressions are compiled when a policy is stored, so that a mistake is refused where it is made and not with the
// first request that meets it. The compiler is made with the first expression: a cluster without policies has none.
package admissionregistration
