package aggregator

import (
	"context"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	"k8s.io/client-go/tools/cache"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/typed/apiregistration/v1"
	informersv1 "k8s.io/kube-aggregator/pkg/client/informers/externalversions/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/controllers/autoregister"
)

// locals keeps an APIService for every group version that is served here, so that clients see all there is, and none
// can be taken over by accident.
type locals struct {
	register interface {
		AddAPIServiceToSyncOnStart(*apiregistrationv1.APIService)
		AddAPIServiceToSync(*apiregistrationv1.APIService)
		RemoveAPIServiceToSync(string)
		Run(workers int, stop <-chan struct{})
	}

	services informersv1.APIServiceInformer

	mu          sync.Mutex
	custom      map[string][]string // group -> versions
	replaceable []schema.GroupVersion
}

func newLocals(services informersv1.APIServiceInformer, client apiregistrationclient.APIServicesGetter) *locals {
	return &locals{register: autoregister.NewAutoRegisterController(services, client), services: services, custom: map[string][]string{}}
}

func (l *locals) run(ctx context.Context) {
	if cache.WaitForCacheSync(ctx.Done(), l.services.Informer().HasSynced) {
		l.mu.Lock()
		for _, gv := range l.replaceable {
			l.register.AddAPIServiceToSyncOnStart(l.unlessReplaced(gv))
		}
		l.mu.Unlock()
	}
	l.register.Run(2, ctx.Done())
}

// unlessReplaced is the APIService of what is served here, or the one that is there if it names another server: what an
// administrator has put in its place stays there through a restart. It is to be registered all the same: the label by which it
// was made here is still on it, and one with the label that nobody registers is deleted.
func (l *locals) unlessReplaced(gv schema.GroupVersion) *apiregistrationv1.APIService {
	own := local(gv, builtin(gv))
	if have, err := l.services.Lister().Get(own.Name); err == nil && have.Spec.Service != nil {
		own.Spec = *have.Spec.DeepCopy()
	}
	return own
}

// RegisterBuiltin makes APIServices of built-in group versions. Who deletes one gets it back at the next start.
func (a *Aggregator) RegisterBuiltin(gvs ...schema.GroupVersion) {
	for _, gv := range gvs {
		a.locals.register.AddAPIServiceToSyncOnStart(local(gv, a.prefer(gv)))
	}
}

// prefer puts a built-in group version in its place in the discovery documents, which says what a client means by a name that
// several groups have: without, the first by the alphabet, and that may be somebody's definition.
func (a *Aggregator) prefer(gv schema.GroupVersion) priority {
	p := builtin(gv)
	a.cfg.Discovery.WithSource(aggregated.BuiltinSource).SetGroupVersionPriority(metav1.GroupVersion(gv), int(p.group), int(p.version))
	return p
}

// RegisterReplaceable is RegisterBuiltin for a group version that another server may serve instead.
func (a *Aggregator) RegisterReplaceable(gv schema.GroupVersion) {
	a.prefer(gv)
	l := a.locals
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replaceable = append(l.replaceable, gv)
}

// RegisterCustom makes the versions those that custom resources define in the group. Deleted ones come back at once.
func (a *Aggregator) RegisterCustom(group string, versions []string) {
	l := a.locals
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range l.custom[group] {
		if !slices.Contains(versions, v) {
			l.register.RemoveAPIServiceToSync(v + "." + group)
		}
	}
	for _, v := range versions {
		if !slices.Contains(l.custom[group], v) {
			l.register.AddAPIServiceToSync(local(schema.GroupVersion{Group: group, Version: v}, priority{1000, 100}))
		}
	}
	l.custom[group] = versions
	if len(versions) == 0 {
		delete(l.custom, group)
	}
}

func local(gv schema.GroupVersion, p priority) *apiregistrationv1.APIService {
	return &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: gv.Version + "." + gv.Group},
		Spec: apiregistrationv1.APIServiceSpec{Group: gv.Group, Version: gv.Version,
			GroupPriorityMinimum: p.group, VersionPriority: p.version},
	}
}

// priority says which group a client means by a name that several have: the higher number.
type priority struct{ group, version int32 }

const (
	fallbackGroup   = 15000
	fallbackVersion = 15
)

func builtin(gv schema.GroupVersion) priority {
	if p, ok := builtinPriority[gv]; ok {
		return p
	}
	return priority{fallbackGroup, fallbackVersion}
}

// builtinPriority orders the groups as upstream does.
var builtinPriority = map[schema.GroupVersion]priority{
	{Group: "apiregistration.k8s.io", Version: "v1"}: {20001, 20}, // which has no APIService
	{Version: "v1"}:                                        {18000, 1},
	{Group: "apps", Version: "v1"}:                         {17800, 15},
	{Group: "events.k8s.io", Version: "v1"}:                {17750, 15},
	{Group: "authentication.k8s.io", Version: "v1"}:        {17700, 15},
	{Group: "authorization.k8s.io", Version: "v1"}:         {17600, 15},
	{Group: "autoscaling", Version: "v1"}:                  {17500, 15},
	{Group: "autoscaling", Version: "v2"}:                  {17500, 30},
	{Group: "batch", Version: "v1"}:                        {17400, 15},
	{Group: "certificates.k8s.io", Version: "v1"}:          {17300, 15},
	{Group: "networking.k8s.io", Version: "v1"}:            {17200, 15},
	{Group: "policy", Version: "v1"}:                       {17100, 15},
	{Group: "rbac.authorization.k8s.io", Version: "v1"}:    {17000, 15},
	{Group: "storage.k8s.io", Version: "v1"}:               {16800, 15},
	{Group: "apiextensions.k8s.io", Version: "v1"}:         {16700, 15},
	{Group: "admissionregistration.k8s.io", Version: "v1"}: {16700, 15},
	{Group: "scheduling.k8s.io", Version: "v1"}:            {16600, 15},
	{Group: "coordination.k8s.io", Version: "v1"}:          {16500, 15},
	{Group: "node.k8s.io", Version: "v1"}:                  {16300, 15},
	{Group: "discovery.k8s.io", Version: "v1"}:             {16200, 15},
	{Group: "resource.k8s.io", Version: "v1"}:              {16200, 21},
	{Group: "flowcontrol.apiserver.k8s.io", Version: "v1"}: {16100, 21},
	{Group: "storagemigration.k8s.io", Version: "v1"}:      {15800, 15},
}
