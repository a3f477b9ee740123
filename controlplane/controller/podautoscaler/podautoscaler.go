package podautoscaler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

// period is how often an autoscaler is looked at (upstream's).
const period = 15 * time.Second

// Deps are what the controller is made from.
type Deps struct {
	controller.Deps
	// Scales reads and writes the scale of any kind; Mapper finds its resource, and is reset when it does not know one.
	Scales scale.ScalesGetter
	Mapper meta.RESTMapper
	// Metrics reads what pods use; the custom and external metrics are somebody else's and may not be served at all.
	Metrics Metrics
}

type keeper struct {
	Deps
	autoscalers, pods cache.SharedIndexInformer

	mu     sync.Mutex
	states map[string]state // guarded by mu; by an autoscaler's key
}

// state is what is remembered of an autoscaler.
type state struct {
	past     past
	selector labels.Selector // of its target; nil if not known
}

// New returns the controller; keys are HorizontalPodAutoscalers.
func New(d Deps) (*controller.Loop, error) {
	k := &keeper{Deps: d, autoscalers: d.Informers.Autoscaling().V2().HorizontalPodAutoscalers().Informer(),
		pods: d.Informers.Core().V1().Pods().Informer(), states: map[string]state{}}
	loop := controller.NewLoop("horizontal-pod-autoscaler", d.Log, 2, k.reconcile)
	loop.Needs(k.pods)
	return loop, controller.Watch(loop, k.autoscalers, func(h, old *autoscalingv2.HorizontalPodAutoscaler) []string {
		if old != nil && old.Generation == h.Generation {
			return nil // our own status
		}
		return []string{h.Namespace + "/" + h.Name}
	})
}

func (k *keeper) reconcile(ctx context.Context, key string) (time.Duration, error) {
	h := controller.Get[autoscalingv2.HorizontalPodAutoscaler](k.autoscalers, key)
	if h == nil {
		k.mu.Lock()
		delete(k.states, key)
		k.mu.Unlock()
		return 0, nil
	}
	scale, of, err := k.target(ctx, h)
	if err != nil {
		meta.MaybeResetRESTMapper(k.Mapper) // it may be of a kind that is new
		return period, k.lost(ctx, h, err)
	}
	l := look{hpa: h, scale: scale, now: time.Now()}
	if l.measures() {
		k.measure(ctx, key, &l)
	}
	v := decide(l, k.state(key).past)
	if v.scale {
		k.rescale(ctx, &l, &v, of)
	}
	k.remember(key, func(s *state) { s.past = v.past })
	for _, e := range v.events {
		k.Events.Eventf(h, e.kind, e.reason, "%s", e.message)
	}
	return period, k.store(ctx, h, v.status)
}

func (k *keeper) state(key string) state {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.states[key]
}

func (k *keeper) remember(key string, change func(*state)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.states[key]
	change(&s)
	k.states[key] = s
}

// target reads the scale of an autoscaler's target, from the first of the kind's resources that has one.
func (k *keeper) target(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler) (*autoscalingv1.Scale, schema.GroupResource, error) {
	ref := h.Spec.ScaleTargetRef
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, schema.GroupResource{}, fmt.Errorf("invalid API version in scale target reference: %w", err)
	}
	mappings, err := k.mappings(schema.GroupKind{Group: gv.Group, Kind: ref.Kind})
	if err != nil {
		return nil, schema.GroupResource{}, fmt.Errorf("unable to determine resource for scale target reference: %w", err)
	}
	var first error
	for _, m := range mappings {
		of := m.Resource.GroupResource()
		scale, err := k.Scales.Scales(h.Namespace).Get(ctx, of, ref.Name, metav1.GetOptions{})
		if err == nil {
			return scale, of, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, schema.GroupResource{}, first
}

func (k *keeper) mappings(kind schema.GroupKind) ([]*meta.RESTMapping, error) {
	found, err := k.Mapper.RESTMappings(kind)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("unrecognized resource %s", kind)
	}
	return found, err
}

// lost is of an autoscaler whose target cannot be read.
func (k *keeper) lost(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, why error) error {
	status := *h.Status.DeepCopy()
	status.ObservedGeneration = &h.Generation
	story{&status, h.Generation, time.Now()}.set(autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedGetScale",
		"the HPA controller was unable to get the target's current scale: %v", why)
	k.Events.Eventf(h, corev1.EventTypeWarning, "FailedGetScale", "%s", why.Error())
	return k.store(ctx, h, status)
}

func (k *keeper) rescale(ctx context.Context, l *look, v *verdict, of schema.GroupResource) {
	from, to := l.scale.Spec.Replicas, v.status.DesiredReplicas
	next := l.scale.DeepCopy()
	next.Spec.Replicas = to
	s := story{&v.status, l.hpa.Generation, l.now}
	if _, err := k.Scales.Scales(l.hpa.Namespace).Update(ctx, of, next, metav1.UpdateOptions{}); err != nil {
		v.events = append(v.events, event{corev1.EventTypeWarning, "FailedRescale", fmt.Sprintf("New size: %d; reason: %s; error: %v", to, v.why, err)})
		s.set(autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedUpdateScale", "the HPA controller was unable to update the target scale: %v", err)
		v.status.DesiredReplicas = l.hpa.Status.DesiredReplicas
		return
	}
	v.events = append(v.events, event{corev1.EventTypeNormal, "SuccessfulRescale", fmt.Sprintf("New size: %d; reason: %s", to, v.why)})
	l.scaled(s, to)
	v.status.LastScaleTime = new(metav1.Now())
	v.past = v.past.scaled(from, to, l.now)
}

func (k *keeper) store(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, status autoscalingv2.HorizontalPodAutoscalerStatus) error {
	if equality.Semantic.DeepEqual(h.Status, status) {
		return nil
	}
	next := h.DeepCopy()
	next.Status = status
	_, err := k.Client.AutoscalingV2().HorizontalPodAutoscalers(h.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or changed: then the change asks for a look of its own
	}
	return err
}

// measure fills in what only an autoscaler within its bounds needs: the target's pods and the metrics.
func (k *keeper) measure(ctx context.Context, key string, l *look) {
	selector, invalid := k.selector(l)
	if l.invalid = invalid; invalid != nil {
		return
	}
	if err := cache.ListAllByNamespace(k.pods.GetIndexer(), l.hpa.Namespace, selector, func(obj any) { l.pods = append(l.pods, obj.(*corev1.Pod)) }); err != nil {
		l.invalid = &problem{reason: "InvalidSelector", message: err.Error()}
		return
	}
	k.remember(key, func(s *state) { s.selector = selector })
	if rivals := k.rivals(l.hpa.Namespace, l.pods); len(rivals) > 1 {
		l.invalid = &problem{"AmbiguousSelector", "AmbiguousSelector", fmt.Sprintf("pods by selector %s are controlled by multiple HPAs: %v", selector, rivals)}
		return
	}
	l.readings = make([]reading, len(l.hpa.Spec.Metrics))
	for i := range l.hpa.Spec.Metrics {
		l.readings[i] = k.Metrics.read(ctx, l.hpa.Namespace, &l.hpa.Spec.Metrics[i], selector)
		if errors.Is(l.readings[i].err, errElsewhere) {
			meta.MaybeResetRESTMapper(k.Mapper) // whoever serves it may have come since
		}
	}
}

func (k *keeper) selector(l *look) (labels.Selector, *problem) {
	text := l.scale.Status.Selector
	if text == "" {
		return nil, &problem{"InvalidSelector", "SelectorRequired", "the HPA target's scale is missing a selector"}
	}
	selector, err := labels.Parse(text)
	if err != nil {
		return nil, &problem{"InvalidSelector", "InvalidSelector", fmt.Sprintf("couldn't convert selector into a corresponding internal selector object: %v", err)}
	}
	return selector, nil
}

// rivals are the autoscalers of a namespace whose targets have any of these pods.
func (k *keeper) rivals(namespace string, pods []*corev1.Pod) (out []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, s := range k.states {
		if strings.HasPrefix(key, namespace+"/") && s.selector != nil &&
			slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return s.selector.Matches(labels.Set(p.Labels)) }) {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}
