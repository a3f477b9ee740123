// Package certificates describes the group certificates.k8s.io: CertificateSigningRequest with its approval,
// ClusterTrustBundle and PodCertificateRequest.
//
// Who asks for a certificate is written by the server and by nobody else. Approval, issuance and the request itself are
// three subresources with three rights: a write to one never carries into another.
package certificates
