package events

import (
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/randfill"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(), resourcetest.Row{Plural: "events", Short: "ev", Kind: "Event", Namespaced: true})
}

// Whatever the fields hold, nothing may be lost on the way into the store and back.
func TestConversionLosesNothing(t *testing.T) {
	fill := randfill.NewWithSeed(1).NilChance(0.3)
	for range 200 {
		var e eventsv1.Event
		fill.Fill(&e)
		e.TypeMeta = metav1.TypeMeta{}
		if back := fromCore(toCore(&e)); !equality.Semantic.DeepEqual(&e, back) {
			t.Fatalf("lost on the way\n got: %+v\nwant: %+v", back, &e)
		}
	}
}

func TestStoredSelector(t *testing.T) {
	s, err := storedSelector(fields.ParseSelectorOrDie("regarding.name=web,reportingController=kubelet,type=Normal,metadata.name=x"))
	if want := "metadata.name=x,involvedObject.name=web,reportingComponent=kubelet,type=Normal"; err != nil || s.String() != want {
		t.Errorf("got %v, %v, want %s", s, err, want)
	}
}
