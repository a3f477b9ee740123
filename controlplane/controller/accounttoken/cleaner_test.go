package accounttoken

import (
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"keelson.dev/keelson/controlplane/controller"
)

var (
	today = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	owner = &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a", UID: "u"}, Secrets: []corev1.ObjectReference{{Name: "s"}}}
)

// old is a token of three years, with labels.
func old(labels ...string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s", UID: "s", Annotations: map[string]string{corev1.ServiceAccountNameKey: "a"},
		Labels: map[string]string{}, CreationTimestamp: metav1.NewTime(today.AddDate(-3, 0, 0))}, Type: corev1.SecretTypeServiceAccountToken}
	for i := 0; i < len(labels); i += 2 {
		s.Labels[labels[i]] = labels[i+1]
	}
	return s
}

func TestAge(t *testing.T) {
	young := old()
	young.CreationTimestamp = metav1.NewTime(today.AddDate(0, -11, 0))
	user := func(name string) []any {
		return []any{&corev1.Pod{Spec: corev1.PodSpec{Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}}}}}}
	}
	for _, c := range []struct {
		what    string
		secret  *corev1.Secret
		account *corev1.ServiceAccount
		pods    []any
		want    action
	}{
		{"never used", old(), owner, nil, invalidate},
		{"used two years ago", old(lastUsed, "2024-06-01"), owner, nil, invalidate},
		{"used this year", old(lastUsed, "2026-01-01"), owner, nil, nothing},
		{"not a year old", young, owner, nil, nothing},
		{"made by hand", old(), &corev1.ServiceAccount{}, nil, nothing},
		{"of an account that is gone", old(), nil, nil, nothing},
		{"mounted", old(), owner, user("s"), nothing},
		{"another is mounted", old(), owner, user("t"), invalidate},
		{"refused since last month", old(invalidSince, "2026-05-01"), owner, nil, nothing},
		{"refused since two years", old(invalidSince, "2024-05-01"), owner, nil, remove},
		{"refused since somebody's word", old(invalidSince, "forever"), owner, nil, invalidate},
		{"refused since two years, and used since", old(invalidSince, "2024-05-01", lastUsed, "2026-05-01"), owner, nil, nothing},
	} {
		if got := age(c.secret, c.account, c.pods, today); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// Over the years: refused after the first look, gone a year later; nothing happens in the year before uses were noted.
func TestClean(t *testing.T) {
	noted := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: tracking}, Data: map[string]string{"since": "2026-05-30"}}
	api := fake.NewClientset(owner, old(), noted)
	all := informers.NewSharedInformerFactory(api, 0)
	c := &cleaner{Deps: controller.Deps{Client: api, Log: slog.New(slog.DiscardHandler)}, secrets: api.CoreV1(), accounts: all.Core().V1().ServiceAccounts().Informer(), pods: all.Core().V1().Pods().Informer()}
	if err := c.accounts.GetIndexer().Add(owner); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ day, want string }{
		{"2026-06-01", "valid"}, {"2027-05-29", "valid"}, {"2027-06-01", "invalid since 2027-06-01"}, {"2028-05-01", "invalid since 2027-06-01"}, {"2028-06-02", "gone"},
	} {
		now, err := time.Parse(time.DateOnly, step.day)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.clean(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		got := "gone"
		if s, err := api.CoreV1().Secrets("ns").Get(t.Context(), "s", metav1.GetOptions{}); err == nil {
			if got = "valid"; s.Labels[invalidSince] != "" {
				got = "invalid since " + s.Labels[invalidSince]
			}
		}
		if got != step.want {
			t.Errorf("%s: %s, want %s", step.day, got, step.want)
		}
	}
}
