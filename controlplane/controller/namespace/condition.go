package namespace

import (
	"context"
	"fmt"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// tell writes what holds the namespace into its conditions, if that changed.
func (e *emptier) tell(ctx context.Context, ns *corev1.Namespace, r report) error {
	updated := ns.DeepCopy()
	updated.Status.Phase = corev1.NamespaceTerminating
	changed := ns.Status.Phase != corev1.NamespaceTerminating
	for _, c := range conditions(r) {
		changed = set(&updated.Status, c) || changed
	}
	if !changed {
		return nil
	}
	_, err := e.Client.CoreV1().Namespaces().UpdateStatus(ctx, updated, metav1.UpdateOptions{})
	return err
}

// conditions words a report as upstream does.
func conditions(r report) []corev1.NamespaceCondition {
	discovery := condition(corev1.NamespaceDeletionDiscoveryFailure, "DiscoveryFailed", "ResourcesDiscovered", "All resources successfully discovered", "")
	if r.discovery != nil {
		discovery = condition(corev1.NamespaceDeletionDiscoveryFailure, "DiscoveryFailed", "", "",
			"Discovery failed for some groups, "+r.discovery.Error())
	}
	failed := ""
	if len(r.failed) > 0 {
		failed = "Failed to delete all resource types, " + fmt.Sprintf("%d remaining: ", len(r.failed)) + strings.Join(r.failed, "; ")
	}
	remaining, finalizers := "", ""
	if len(r.remaining) > 0 {
		remaining = "Some resources are remaining: " + list(r.remaining, "%s has %d resource instances")
	}
	if len(r.finalizers) > 0 {
		finalizers = "Some content in the namespace has finalizers remaining: " + list(r.finalizers, "%s in %d resource instances")
	}
	return []corev1.NamespaceCondition{
		discovery,
		condition(corev1.NamespaceDeletionGVParsingFailure, "", "ParsedGroupVersions", "All legacy kube types successfully parsed", ""),
		condition(corev1.NamespaceDeletionContentFailure, "ContentDeletionFailed", "ContentDeleted", "All content successfully deleted, may be waiting on finalization", failed),
		condition(corev1.NamespaceContentRemaining, "SomeResourcesRemain", "ContentRemoved", "All content successfully removed", remaining),
		condition(corev1.NamespaceFinalizersRemaining, "SomeFinalizersRemain", "ContentHasNoFinalizers", "All content-preserving finalizers finished", finalizers),
	}
}

// condition is true with the bad words, if there are any, else false with the good ones.
func condition(typ corev1.NamespaceConditionType, badReason, goodReason, goodMessage, bad string) corev1.NamespaceCondition {
	if bad != "" {
		return corev1.NamespaceCondition{Type: typ, Status: corev1.ConditionTrue, Reason: badReason, Message: bad}
	}
	return corev1.NamespaceCondition{Type: typ, Status: corev1.ConditionFalse, Reason: goodReason, Message: goodMessage}
}

func list(counts map[string]int, format string) string {
	parts := make([]string, 0, len(counts))
	for name, n := range counts {
		parts = append(parts, fmt.Sprintf(format, name, n))
	}
	sort.Strings(parts)
	return strings.Join(parts, ", ")
}

// set replaces the condition of c's type and reports whether anything but the time changed.
func set(status *corev1.NamespaceStatus, c corev1.NamespaceCondition) bool {
	c.LastTransitionTime = metav1.Now()
	for i, have := range status.Conditions {
		if have.Type != c.Type {
			continue
		}
		if have.Status == c.Status && have.Reason == c.Reason && have.Message == c.Message {
			return false
		}
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		status.Conditions[i] = c
		return true
	}
	status.Conditions = append(status.Conditions, c)
	return true
}
