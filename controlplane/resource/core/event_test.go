package core

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestEventsOfTheNewerFace(t *testing.T) {
	k := eventKind()
	ctx := request.WithRequestInfo(t.Context(), &request.RequestInfo{APIGroup: "events.k8s.io", APIVersion: "v1"})
	now := metav1.NewMicroTime(time.Unix(1000, 0))
	good := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "default"}, EventTime: now, Type: "Normal",
		ReportingController: "c", ReportingInstance: "i", Action: "a", Reason: "r"}
	resourcetest.CheckErrors(t, k.Validate(ctx, good))
	odd := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "E", Namespace: "default"}, Type: "Odd", Count: 1, Series: &corev1.EventSeries{Count: 1}}
	resourcetest.CheckErrors(t, k.Validate(ctx, odd),
		`metadata.name: Invalid value: "E"`,
		`series.count: Invalid value: "": should be at least 2`,
		"series.lastObservedTime: Required value",
		"eventTime: Required value",
		`type: Invalid value: "": has invalid value: Odd`,
		`count: Invalid value: "": needs to be unset`)
	resourcetest.CheckErrors(t, k.Validate(t.Context(), odd))
	finer := good.DeepCopy()
	finer.EventTime = metav1.NewMicroTime(now.Add(7 * time.Nanosecond))
	finer.Series = &corev1.EventSeries{Count: 2, LastObservedTime: now}
	resourcetest.CheckErrors(t, k.ValidateUpdate(ctx, finer, good))
	other := good.DeepCopy()
	other.Message = "else"
	resourcetest.CheckErrors(t, k.ValidateUpdate(ctx, other, good), `message: Invalid value: "else": field is immutable`)
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), other, good))
	other.ReportingController = ""
	resourcetest.CheckErrors(t, k.Validate(ctx, other), "reportingController: Required value", "reportingController", "reportingController")
	resourcetest.CheckErrors(t, k.Validate(t.Context(), other), "reportingComponent: Required value", "reportingComponent", "reportingComponent")
}
