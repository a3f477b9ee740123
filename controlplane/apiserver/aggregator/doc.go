// Package aggregator lets other servers serve groups of this API: a request for a group version whose APIService names a
// Service goes there, with the front proxy's certificate and the user's name in headers; everything else stays here.
//
// It is thin while nobody uses it: an informer of APIServices, and the registration of what is served here. What watches
// Services, asks other servers whether they answer, and merges their discovery documents starts with the first
// APIService that names a Service.
//
// Invariants: a request is authorized before it comes here; an answer that redirects is never passed on (CVE-2022-3172);
// a server that does not answer costs its own group and nothing else.
package aggregator
