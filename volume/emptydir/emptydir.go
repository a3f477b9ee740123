package emptydir

import (
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/volume/mount"
)

// Make makes the folder that v describes at dir; idempotent, content stays. Everybody may write in it, as every image expects.
func Make(dir string, v *corev1.EmptyDirVolumeSource) error {
	switch v.Medium {
	case corev1.StorageMediumDefault:
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("emptydir: %w", err)
		}
	case corev1.StorageMediumMemory:
		var size int64
		if v.SizeLimit != nil {
			size = v.SizeLimit.Value()
		}
		if err := mount.Tmpfs(dir, size, 0o777); err != nil {
			return err
		}
	default:
		return fmt.Errorf("emptydir: medium %q is not supported on this node", v.Medium)
	}
	st, err := os.Lstat(dir)
	if err == nil && st.Mode().Perm() != 0o777 {
		err = os.Chmod(dir, st.Mode()&os.ModeSetgid|0o777)
	}
	if err != nil {
		return fmt.Errorf("emptydir: %w", err)
	}
	return nil
}
