// Package networking describes the group networking.k8s.io: NetworkPolicy, Ingress and IngressClass,
// and the ranges and addresses of Services, ServiceCIDR and IPAddress.
package networking
