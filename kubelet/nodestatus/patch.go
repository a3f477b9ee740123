package nodestatus

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// statusPatch is the strategic merge patch that makes have's status want's. It says nothing of the rest of the node, nor
// of conditions and attached volumes that are not ours: others change them at the same time, and a whole object would put
// back what it was read with. Of taints not even that: a node may not change its own (admission NodeRestriction), so the
// API answers Forbidden rather than Conflict. The UID keeps the patch from another node of the same name.
func statusPatch(have, want *corev1.Node) ([]byte, error) {
	old, now := have.Status.DeepCopy(), want.Status.DeepCopy()
	moved := !equality.Semantic.DeepEqual(old.Addresses, now.Addresses)
	old.Addresses, now.Addresses = nil, nil // they would be merged by type, of which a node with two families has two
	before, err := json.Marshal(map[string]any{"status": old})
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(map[string]any{"status": now})
	if err != nil {
		return nil, err
	}
	diff, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Node{})
	if err != nil {
		return nil, err
	}
	patch := map[string]map[string]any{}
	if err := json.Unmarshal(diff, &patch); err != nil {
		return nil, err
	}
	if have.UID != "" {
		patch["metadata"] = map[string]any{"uid": have.UID}
	}
	if moved {
		if patch["status"] == nil {
			patch["status"] = map[string]any{}
		}
		list := []any{map[string]string{"$patch": "replace"}}
		for _, a := range want.Status.Addresses {
			list = append(list, a)
		}
		patch["status"]["addresses"] = list
	}
	return json.Marshal(patch)
}
