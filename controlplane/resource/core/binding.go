package core

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	storageerr "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/util/dryrun"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

// podBinding is pods/binding: it gives a pod its node, once.
type podBinding struct{ pods *genericregistry.Store }

var (
	_ rest.NamedCreater                   = podBinding{}
	_ rest.SubresourceObjectMetaPreserver = podBinding{}
)

func (b podBinding) New() runtime.Object { return &corev1.Binding{} }

// Destroy does nothing: the pods' own storage owns the store.
func (b podBinding) Destroy() {}

// PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate: a binding's UID and resource version are preconditions.
func (b podBinding) PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate() bool { return true }

// Create binds the pod. It answers Conflict if the pod has a node already, is being deleted or is gated.
func (b podBinding) Create(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc,
	options *metav1.CreateOptions) (runtime.Object, error) {
	binding, ok := obj.(*corev1.Binding)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", obj))
	}
	if name != binding.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	if errs := validateBinding(binding); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	if validate != nil {
		if err := validate(ctx, binding.DeepCopy()); err != nil {
			return nil, err
		}
	}
	if err := b.assign(ctx, binding, dryrun.IsDryRun(options.DryRun)); err != nil {
		return nil, bindingError(err, name)
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

func (b podBinding) assign(ctx context.Context, binding *corev1.Binding, dryRun bool) error {
	key, err := b.pods.KeyFunc(ctx, binding.Name)
	if err != nil {
		return err
	}
	var pre *storage.Preconditions
	if binding.UID != "" || binding.ResourceVersion != "" {
		pre = &storage.Preconditions{}
		if binding.UID != "" {
			pre.UID = &binding.UID
		}
		if binding.ResourceVersion != "" {
			pre.ResourceVersion = &binding.ResourceVersion
		}
	}
	update := storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
		pod, ok := obj.(*corev1.Pod)
		if !ok {
			return nil, fmt.Errorf("bind pod %q: stored object is a %T", binding.Name, obj)
		}
		return pod, bind(pod, binding)
	})
	return b.pods.Storage.GuaranteedUpdate(ctx, key, &corev1.Pod{}, false, pre, update, dryRun, nil)
}

// bind writes the binding into the pod, or says why not.
func bind(pod *corev1.Pod, binding *corev1.Binding) error {
	switch {
	case pod.DeletionTimestamp != nil:
		return fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", pod.Name)
	case pod.Spec.NodeName != "":
		return fmt.Errorf("pod %v is already assigned to node %q", pod.Name, pod.Spec.NodeName)
	case len(pod.Spec.SchedulingGates) > 0:
		return fmt.Errorf("pod %v has non-empty .spec.schedulingGates", pod.Name)
	}
	pod.Spec.NodeName = binding.Target.Name
	pod.Status.NominatedNodeName = "" // the nomination has come true or is stale
	pod.Annotations = overlay(pod.Annotations, binding.Annotations)
	podspec.DropRetired(pod.Annotations)
	pod.Labels = overlay(pod.Labels, binding.Labels)
	setCondition(&pod.Status, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue})
	return nil
}

func overlay(onto, with map[string]string) map[string]string {
	if onto == nil && len(with) > 0 {
		onto = make(map[string]string, len(with))
	}
	maps.Copy(onto, with)
	return onto
}

func bindingError(err error, name string) error {
	err = storageerr.InterpretGetError(err, corev1.Resource("pods"), name)
	err = storageerr.InterpretUpdateError(err, corev1.Resource("pods"), name)
	if _, ok := err.(apierrors.APIStatus); !ok { //nolint:errorlint // the API machinery wants the status itself, unwrapped
		err = apierrors.NewConflict(corev1.Resource("pods/binding"), name, err)
	}
	return err
}

func validateBinding(b *corev1.Binding) field.ErrorList {
	var errs field.ErrorList
	target := field.NewPath("target")
	isNode := b.Target.Kind == "" || b.Target.Kind == "Node"
	if !isNode {
		errs = append(errs, field.NotSupported(target.Child("kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		return append(errs, field.Required(target.Child("name"), ""))
	}
	if isNode {
		for _, msg := range apivalidation.NameIsDNSSubdomain(b.Target.Name, false) {
			errs = append(errs, field.Invalid(target.Child("name"), b.Target.Name, msg))
		}
	}
	return errs
}

// bindingKind is the old way to bind: POST to the namespace's bindings.
func bindingKind() resource.Kind {
	return resource.Kind{
		Kind: "Binding", Plural: "bindings", Namespaced: true, Verbs: []string{"create"},
		New: func() runtime.Object { return &corev1.Binding{} },
		Storage: func(d resource.Deps) (rest.Storage, error) {
			return legacyBinding{pods: func() *genericregistry.Store { return d.Store(corev1.Resource("pods")) }}, nil
		},
	}
}

type legacyBinding struct{ pods func() *genericregistry.Store }

var (
	_ rest.Creater              = legacyBinding{}
	_ rest.Scoper               = legacyBinding{}
	_ rest.SingularNameProvider = legacyBinding{}
)

func (b legacyBinding) New() runtime.Object     { return &corev1.Binding{} }
func (b legacyBinding) Destroy()                {}
func (b legacyBinding) NamespaceScoped() bool   { return true }
func (b legacyBinding) GetSingularName() string { return "binding" }

func (b legacyBinding) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc,
	options *metav1.CreateOptions) (runtime.Object, error) {
	binding, ok := obj.(*corev1.Binding)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", obj))
	}
	return podBinding{b.pods()}.Create(ctx, binding.Name, binding, validate, options)
}
