package aggregator

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/fake"
	"k8s.io/kube-aggregator/pkg/client/informers/externalversions"
)

// registered is a register that remembers what it was given before it ran.
type registered map[string]apiregistrationv1.APIServiceSpec

func (r registered) AddAPIServiceToSyncOnStart(s *apiregistrationv1.APIService) { r[s.Name] = s.Spec }
func (registered) AddAPIServiceToSync(*apiregistrationv1.APIService)            {}
func (registered) RemoveAPIServiceToSync(string)                                {}
func (registered) Run(int, <-chan struct{})                                     {}

// A restart leaves a group version that may be served by another server to the one that an administrator put there: it used to be
// taken back by each start.
func TestReplacedStaysReplaced(t *testing.T) {
	ctx := t.Context()
	gv := schema.GroupVersion{Group: "metrics.k8s.io", Version: "v1beta1"}
	own := local(gv, priority{fallbackGroup, fallbackVersion}).Spec
	others := apiregistrationv1.APIServiceSpec{Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: 100, VersionPriority: 100,
		Service: &apiregistrationv1.ServiceReference{Namespace: "kube-system", Name: "metrics-server"}}
	stale := own
	stale.VersionPriority++
	for name, step := range map[string]struct {
		have *apiregistrationv1.APIServiceSpec
		want apiregistrationv1.APIServiceSpec
	}{"none is there": {nil, own}, "another server's": {&others, others}, "an older one of ours": {&stale, own}} {
		client := fake.NewSimpleClientset()
		if step.have != nil {
			s := &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1beta1.metrics.k8s.io"}, Spec: *step.have}
			if err := client.Tracker().Add(s); err != nil {
				t.Fatal(err)
			}
		}
		factory := externalversions.NewSharedInformerFactory(client, 0)
		a := &Aggregator{cfg: Config{Discovery: aggregated.NewResourceManager("apis")}, locals: newLocals(factory.Apiregistration().V1().APIServices(), client.ApiregistrationV1())}
		got := registered{}
		a.locals.register = got
		a.RegisterReplaceable(gv)
		a.locals.services.Informer()
		factory.Start(ctx.Done())
		a.locals.run(ctx)
		if spec, ok := got["v1beta1.metrics.k8s.io"]; !ok || spec.VersionPriority != step.want.VersionPriority || (spec.Service == nil) != (step.want.Service == nil) {
			t.Errorf("%s: registered %+v; want %+v", name, got, step.want)
		}
	}
}
