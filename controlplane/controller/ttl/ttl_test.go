package ttl

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestRemaining(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	job := func(ttl *int32, ended time.Duration, status corev1.ConditionStatus) *batchv1.Job {
		return &batchv1.Job{Spec: batchv1.JobSpec{TTLSecondsAfterFinished: ttl}, Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{
			{Type: batchv1.JobSuspended, Status: corev1.ConditionTrue}, {Type: batchv1.JobFailed, Status: status, LastTransitionTime: metav1.NewTime(now.Add(-ended))}}}}
	}
	for _, s := range []struct {
		what     string
		job      *batchv1.Job
		left     time.Duration
		finished bool
	}{
		{"no limit: kept for ever", job(nil, time.Hour, corev1.ConditionTrue), 0, false},
		{"not finished", job(ptr.To[int32](5), time.Hour, corev1.ConditionFalse), 0, false},
		{"still kept", job(ptr.To[int32](5), 2*time.Second, corev1.ConditionTrue), 3 * time.Second, true},
		{"over", job(ptr.To[int32](5), time.Hour, corev1.ConditionTrue), 0, true},
		{"at once", job(ptr.To[int32](0), 0, corev1.ConditionTrue), 0, true},
	} {
		if left, finished := remaining(s.job, now); left != s.left || finished != s.finished {
			t.Errorf("%s: %s, %t; want %s, %t", s.what, left, finished, s.left, s.finished)
		}
	}
}
