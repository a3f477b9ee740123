package apiserver

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Secrets whose key is lost: all else works, new Secrets too; and what cannot be read can be deleted by who says so. (As with
// upstream, a list of Secrets fails until then, naming it, after waiting for the watch cache: not asked for here, that takes most of a minute.)
func TestHostile_AP42(t *testing.T) {
	r := start(t, "")
	must(t)(r.client.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "lost"}, StringData: map[string]string{"k": "v"}}, createOptions))
	must(t)(r.client.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("fine"), createOptions))
	r.stop()
	if err := os.Remove(filepath.Join(r.dir, "db", "secrets.key")); err != nil {
		t.Fatal(err)
	}

	again := start(t, r.dir)
	secrets := again.client.CoreV1().Secrets("default")
	must(t)(again.client.CoreV1().ConfigMaps("default").Get(t.Context(), "fine", getOptions))
	must(t)(secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "new"}}, createOptions))
	must(t)(secrets.Get(t.Context(), "new", getOptions))
	if _, err := secrets.Get(t.Context(), "lost", getOptions); err == nil {
		t.Error("a secret was read without its key")
	}
	if err := secrets.Delete(t.Context(), "lost", metav1.DeleteOptions{}); err == nil {
		t.Error("it was deleted without being asked for")
	}
	yes := true
	unsafe := metav1.DeleteOptions{IgnoreStoreReadErrorWithClusterBreakingPotential: &yes}
	if err := secrets.Delete(t.Context(), "new", unsafe); err == nil {
		t.Error("what can be read was deleted unsafely")
	}
	if err := secrets.Delete(t.Context(), "lost", unsafe); err != nil {
		t.Fatalf("unsafe deletion: %v", err)
	}
	eventually(t, "the list works", func() bool {
		list, err := secrets.List(t.Context(), metav1.ListOptions{})
		return err == nil && len(list.Items) == 1
	})
}
