package configmap

import (
	"fmt"
	"io/fs"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/volume/atomicdir"
)

// Files lists cm's entries, or those that items chooses. cm nil means that it does not exist, which only optional allows.
// mode is for entries that have none of their own.
func Files(name string, cm *corev1.ConfigMap, items []corev1.KeyToPath, mode int32, optional bool) (map[string]atomicdir.File, error) {
	out := map[string]atomicdir.File{}
	if cm == nil {
		if optional {
			return out, nil
		}
		return nil, fmt.Errorf("configmap %q not found", name)
	}
	entry := func(key string) ([]byte, bool) {
		if v, ok := cm.Data[key]; ok {
			return []byte(v), true
		}
		v, ok := cm.BinaryData[key]
		return v, ok
	}
	if len(items) == 0 {
		for k := range cm.Data {
			items = append(items, corev1.KeyToPath{Key: k, Path: k})
		}
		for k := range cm.BinaryData {
			items = append(items, corev1.KeyToPath{Key: k, Path: k})
		}
	}
	for _, it := range items {
		v, ok := entry(it.Key)
		if !ok {
			if optional {
				continue
			}
			return nil, fmt.Errorf("configmap references non-existent config key: %s", it.Key)
		}
		m := mode
		if it.Mode != nil {
			m = *it.Mode
		}
		out[it.Path] = atomicdir.File{Data: v, Mode: fs.FileMode(m).Perm()}
	}
	return out, nil
}
