package admission

import (
	"context"
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/tools/cache"
)

// patience is how long a request waits for the informers that its admission needs.
const patience = 10 * time.Second

// newLifecycle refuses objects in namespaces that do not exist or are going away.
func (c *cluster) newLifecycle() (admission.Interface, error) {
	life, err := lifecycle.NewLifecycle(sets.New(metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic))
	if err != nil {
		return nil, err
	}
	life.SetExternalKubeClientSet(c.client)
	life.SetExternalKubeInformerFactory(c.deps.Informers)
	if err := life.ValidateInitialization(); err != nil {
		return nil, err
	}
	return &gate{Lifecycle: life, namespaces: c.deps.Informers.Core().V1().Namespaces().Informer()}, nil
}

// gate holds requests back until the namespaces are known, without the library's polling. The server's own first
// writes pass: they make the namespaces that the others wait for.
type gate struct {
	*lifecycle.Lifecycle
	namespaces cache.SharedIndexInformer
}

func (g *gate) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	waits := a.GetOperation() == admission.Create && a.GetNamespace() != "" && a.GetResource().GroupResource() != namespaces
	if waits && !g.namespaces.HasSynced() {
		if u := a.GetUserInfo(); u != nil && u.GetName() == user.APIServerUser {
			return nil
		}
		if err := waitFor(ctx, g.namespaces.HasSyncedChecker().Done()); err != nil {
			return admission.NewForbidden(a, err)
		}
	}
	return g.Lifecycle.Admit(ctx, a, o)
}

func waitFor(ctx context.Context, done <-chan struct{}) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errors.New("not yet ready to handle request")
	}
}
