package certificates

import (
	"context"
	"errors"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/controlplane/controller"
)

const (
	keepPod  = 15 * time.Minute // a kubelet that wants a certificate still asks again
	lookPods = time.Minute
	perPage  = 500
)

// NewPodCleaner returns the controller that removes PodCertificateRequests of any outcome 15 minutes after they were made
// (KEP-4317). They are many and short-lived: they are looked through now and then, a page at a time, and none is kept in memory.
func NewPodCleaner(d controller.Deps) (*controller.Loop, error) {
	client := d.Client.CertificatesV1()
	loop := controller.NewLoop("podcertificaterequest-cleaner", d.Log, 1, func(ctx context.Context, _ string) (time.Duration, error) {
		var errs []error
		for page := (metav1.ListOptions{Limit: perPage}); ; {
			list, err := client.PodCertificateRequests(metav1.NamespaceAll).List(ctx, page)
			if err != nil {
				return 0, errors.Join(append(errs, err)...)
			}
			for _, r := range old(list.Items, time.Now()) {
				errs = append(errs, gone(client.PodCertificateRequests(r.Namespace).Delete(ctx, r.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(r.UID))})))
			}
			if page.Continue = list.Continue; page.Continue == "" {
				return lookPods, errors.Join(errs...)
			}
		}
	})
	loop.Add("all")
	return loop, nil
}

// old are the requests that have been there long enough.
func old(list []certificatesv1.PodCertificateRequest, now time.Time) (out []certificatesv1.PodCertificateRequest) {
	for _, r := range list {
		if now.Sub(r.CreationTimestamp.Time) >= keepPod {
			out = append(out, r)
		}
	}
	return out
}
