package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/utils/ptr"
)

// newRuntimeClass adds a runtime class's overhead and placement to the pods that choose it.
func newRuntimeClass(c *cluster) admission.Interface {
	return both{
		admitter: admitter{admission.NewHandler(admission.Create), func(ctx context.Context, a admission.Attributes) error {
			pod, ok := object[*corev1.Pod](a, pods)
			if !ok {
				return nil
			}
			class, err := c.runtimeClass(ctx, a, pod)
			if err != nil || class == nil {
				return err
			}
			if err := addOverhead(pod, class); err != nil {
				return admission.NewForbidden(a, err)
			}
			if err := addPlacement(pod, class); err != nil {
				return admission.NewForbidden(a, err)
			}
			return nil
		}},
		validate: func(ctx context.Context, a admission.Attributes) error {
			pod, ok := object[*corev1.Pod](a, pods)
			if !ok {
				return nil
			}
			class, err := c.runtimeClass(ctx, a, pod)
			if err != nil {
				return err
			}
			switch {
			case class != nil && class.Overhead != nil:
				if !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
					return admission.NewForbidden(a, errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
				}
			case pod.Spec.Overhead != nil:
				return admission.NewForbidden(a, errors.New("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
			}
			return nil
		},
	}
}

func (c *cluster) runtimeClass(ctx context.Context, a admission.Attributes, pod *corev1.Pod) (*nodev1.RuntimeClass, error) {
	name := ptr.Deref(pod.Spec.RuntimeClassName, "")
	if name == "" {
		return nil, nil
	}
	class, err := c.runtimes.Get(ctx, "", name)
	if notFound(err) {
		return nil, admission.NewForbidden(a, fmt.Errorf("pod rejected: RuntimeClass %q not found", name))
	}
	return class, err
}

func addOverhead(pod *corev1.Pod, class *nodev1.RuntimeClass) error {
	if class.Overhead == nil {
		return nil
	}
	if len(pod.Spec.Overhead) > 0 && !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
		return errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
	}
	pod.Spec.Overhead = class.Overhead.PodFixed.DeepCopy()
	return nil
}

func addPlacement(pod *corev1.Pod, class *nodev1.RuntimeClass) error {
	if class.Scheduling == nil {
		return nil
	}
	for k, v := range class.Scheduling.NodeSelector {
		if own, ok := pod.Spec.NodeSelector[k]; ok && own != v {
			return fmt.Errorf("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", k, v, k, own)
		}
		if pod.Spec.NodeSelector == nil {
			pod.Spec.NodeSelector = map[string]string{}
		}
		pod.Spec.NodeSelector[k] = v
	}
	pod.Spec.Tolerations = merged(slices.Concat(pod.Spec.Tolerations, class.Scheduling.DeepCopy().Tolerations))
	return nil
}

// merged leaves out tolerations that others of the list cover; of equal ones the first stays.
func merged(all []corev1.Toleration) []corev1.Toleration {
	var out []corev1.Toleration
	for i, t := range all {
		covered := slices.ContainsFunc(out, func(other corev1.Toleration) bool { return covers(other, t) }) ||
			slices.ContainsFunc(all[i+1:], func(other corev1.Toleration) bool {
				return !equality.Semantic.DeepEqual(other, t) && covers(other, t)
			})
		if !covered {
			out = append(out, t)
		}
	}
	return out
}

// covers tells whether a tolerates all that b does.
func covers(a, b corev1.Toleration) bool {
	switch {
	case equality.Semantic.DeepEqual(a, b):
		return true
	case a.Key != b.Key && (a.Key != "" || a.Operator != corev1.TolerationOpExists),
		a.Effect != b.Effect && a.Effect != "":
		return false
	case a.Effect == corev1.TaintEffectNoExecute && a.TolerationSeconds != nil && (b.TolerationSeconds == nil || *b.TolerationSeconds > *a.TolerationSeconds):
		return false
	}
	switch a.Operator {
	case corev1.TolerationOpEqual, "":
		return b.Operator == corev1.TolerationOpEqual && a.Value == b.Value
	}
	return a.Operator == corev1.TolerationOpExists
}

const ingressAnnotation = "kubernetes.io/ingress.class"

var ingresses = schema.GroupResource{Group: networkingv1.GroupName, Resource: "ingresses"}

// newDefaultIngressClass gives an ingress that names no class the default one.
func newDefaultIngressClass(c *cluster) admission.Interface {
	return admitter{admission.NewHandler(admission.Create), func(ctx context.Context, a admission.Attributes) error {
		ingress, ok := object[*networkingv1.Ingress](a, ingresses)
		if !ok || ingress.Spec.IngressClassName != nil {
			return nil
		}
		if _, old := ingress.Annotations[ingressAnnotation]; old {
			return nil
		}
		list, err := c.ingresses.List(ctx, "")
		if err != nil {
			return admission.NewForbidden(a, err)
		}
		class := newestDefault(list, func(i *networkingv1.IngressClass) metav1.ObjectMeta { return i.ObjectMeta },
			func(m metav1.ObjectMeta) bool {
				return m.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true"
			})
		if class != nil {
			ingress.Spec.IngressClassName = ptr.To((*class).Name)
		}
		return nil
	}}
}

// newTopologyLabels writes a node's zone and region onto the binding of a pod to it, from where they become the pod's labels, or onto
// a pod that comes with its node.
func newTopologyLabels(c *cluster) admission.Interface {
	return admitter{admission.NewHandler(admission.Create), func(ctx context.Context, a admission.Attributes) error {
		if a.GetResource().GroupResource() != pods {
			return nil
		}
		switch o := a.GetObject().(type) {
		case *corev1.Binding:
			if a.GetSubresource() == "binding" && o.Target.Kind == "Node" {
				return c.locate(ctx, &o.ObjectMeta, o.Target.Name)
			}
		case *corev1.Pod:
			if a.GetSubresource() == "" && o.Spec.NodeName != "" {
				return c.locate(ctx, &o.ObjectMeta, o.Spec.NodeName)
			}
		}
		return nil
	}}
}

func (c *cluster) locate(ctx context.Context, m *metav1.ObjectMeta, name string) error {
	if len(path.IsValidPathSegmentName(name)) > 0 {
		return nil // nobody's name: validation says so, a client that asked for it would fail
	}
	node, err := c.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		if notFound(err) {
			return nil // what becomes of a pod whose node is not there is for others to say
		}
		return err
	}
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion} {
		if v, ok := node.Labels[key]; ok {
			metav1.SetMetaDataLabel(m, key, v)
		}
	}
	return nil
}
