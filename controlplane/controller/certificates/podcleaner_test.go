package certificates

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"keelson.dev/keelson/controlplane/controller"
)

// Requests go 15 minutes after they were made, whatever became of them, and those that are made meanwhile stay.
func TestPodCleaner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset()
		loop, err := NewPodCleaner(controller.Deps{Client: api, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		made := func(name string, conditions ...metav1.Condition) {
			r := &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, CreationTimestamp: metav1.Now()}}
			r.Status.Conditions = conditions
			if err := api.Tracker().Add(r); err != nil {
				t.Fatal(err)
			}
		}
		left := func() string {
			list, err := api.CertificatesV1().PodCertificateRequests("").List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, r := range list.Items {
				names = append(names, r.Name)
			}
			return strings.Join(names, " ")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- loop.Run(ctx) }()
		made("issued", metav1.Condition{Type: "Issued", Status: metav1.ConditionTrue})
		made("pending")
		time.Sleep(14 * time.Minute)
		made("young")
		if got := left(); got != "issued pending young" {
			t.Errorf("after 14 minutes: %s", got)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := left(); got != "young" {
			t.Errorf("after 16 minutes: %s", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
