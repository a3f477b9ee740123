package secret

import (
	"fmt"
	"io/fs"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/volume/atomicdir"
)

// Files lists s's entries, or those that items chooses. s nil means that it does not exist, which only optional allows.
// mode is for entries that have none of their own.
func Files(name string, s *corev1.Secret, items []corev1.KeyToPath, mode int32, optional bool) (map[string]atomicdir.File, error) {
	out := map[string]atomicdir.File{}
	if s == nil {
		if optional {
			return out, nil
		}
		return nil, fmt.Errorf("secret %q not found", name)
	}
	if len(items) == 0 {
		for k := range s.Data {
			items = append(items, corev1.KeyToPath{Key: k, Path: k})
		}
	}
	for _, it := range items {
		v, ok := s.Data[it.Key]
		if !ok {
			if optional {
				continue
			}
			return nil, fmt.Errorf("references non-existent secret key: %s", it.Key)
		}
		m := mode
		if it.Mode != nil {
			m = *it.Mode
		}
		out[it.Path] = atomicdir.File{Data: v, Mode: fs.FileMode(m).Perm()}
	}
	return out, nil
}
