package apiserver

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"os"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
)

const (
	// leaseLife is how long a Lease of this server's stands for it, leaseEvery how often it is renewed: an idle cluster's disk should rest.
	leaseLife  = time.Hour
	leaseEvery = 10 * time.Minute
	leaseRetry = 10 * time.Second
)

// identify keeps the Leases by which dashboards see who serves: the server's own (KEP-1965), and those of the controllers and the
// scheduler beside it, which upstream has for their elections. Here a server that is alone leads.
func (s *Server) identify(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(s.loopback.config(systemUser))
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	host = cmp.Or(s.cfg.NodeName, host)
	me := host + "_" + string(uuid.NewUUID())
	own := leaseOf(serverName(host), me)
	own.Labels = map[string]string{"apiserver.kubernetes.io/identity": "kube-apiserver", corev1.LabelHostname: host}
	leases := []*coordinationv1.Lease{own, leaseOf("kube-controller-manager", me), leaseOf("kube-scheduler", me)}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		again := leaseEvery
		for _, l := range leases {
			if err := renew(ctx, client, l, metav1.NewMicroTime(time.Now())); err != nil && ctx.Err() == nil {
				s.log.Warn("lease", "name", l.Name, "err", err)
				again = leaseRetry
			}
		}
		timer.Reset(again)
	}
}

// serverName is the name of a server's Lease: the same at every start on a machine, as upstream makes it.
func serverName(host string) string {
	sum := sha256.Sum256([]byte(host))
	return "apiserver-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

func leaseOf(name, holder string) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceSystem},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: ptr(int32(leaseLife / time.Second))}}
}

// renew makes a Lease, or takes it over, or renews it.
func renew(ctx context.Context, client kubernetes.Interface, want *coordinationv1.Lease, now metav1.MicroTime) error {
	api := client.CoordinationV1().Leases(want.Namespace)
	have, err := api.Get(ctx, want.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		first := want.DeepCopy()
		first.Spec.AcquireTime, first.Spec.RenewTime, first.Spec.LeaseTransitions = &now, &now, ptr(int32(0))
		_, err = api.Create(ctx, first, metav1.CreateOptions{})
	} else if err == nil {
		_, err = api.Update(ctx, renewed(have, want, now), metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	return nil
}

// renewed is a Lease as its holder leaves it now.
func renewed(have, want *coordinationv1.Lease, now metav1.MicroTime) *coordinationv1.Lease {
	l := have.DeepCopy()
	if l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity != *want.Spec.HolderIdentity {
		n := int32(0)
		if l.Spec.LeaseTransitions != nil {
			n = *l.Spec.LeaseTransitions + 1
		}
		l.Spec.LeaseTransitions, l.Spec.AcquireTime = &n, &now
	}
	l.Labels, l.Spec.RenewTime = want.Labels, &now
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds = want.Spec.HolderIdentity, want.Spec.LeaseDurationSeconds
	return l
}
