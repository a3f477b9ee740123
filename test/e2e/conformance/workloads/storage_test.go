package workloads

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func ptr[T any](v T) *T { return &v }

// mounted adds a volume at /v.
func mounted(p *corev1.Pod, source corev1.VolumeSource) *corev1.Pod {
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "v", VolumeSource: source})
	for i := range p.Spec.Containers {
		p.Spec.Containers[i].VolumeMounts = append(p.Spec.Containers[i].VolumeMounts, corev1.VolumeMount{Name: "v", MountPath: "/v"})
	}
	return p
}

// as runs a pod as a user, and as a group of its files if that is not 0.
func as(p *corev1.Pod, uid, fsGroup int64) *corev1.Pod {
	p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &uid}
	if fsGroup != 0 {
		p.Spec.SecurityContext.FSGroup = &fsGroup
	}
	return p
}

func (s *spec) configMap(name string, data map[string]string) {
	s.Helper()
	_, err := s.client.CoreV1().ConfigMaps(s.ns).Create(s.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data, BinaryData: map[string][]byte{"dump.bin": {0xde, 0xca, 0xfe, 0xba}}}, metav1.CreateOptions{})
	s.must(err)
}

func (s *spec) secret(name string, data map[string]string) {
	s.Helper()
	_, err := s.client.CoreV1().Secrets(s.ns).Create(s.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data}, metav1.CreateOptions{})
	s.must(err)
}

// TestFileModes: ConfigMap, Secret, Downward API and Projected volumes: contents and modes by default, with defaultMode, with an item's mode, as non-root, with fsGroup.
func TestFileModes(t *testing.T) {
	s := begin(t)
	s.configMap("cm", map[string]string{"data-1": "value-1", "data-2": "value-2"})
	s.secret("sec", map[string]string{"data-1": "value-1", "data-2": "value-2"})
	item, moded := []corev1.KeyToPath{{Key: "data-2", Path: "path/to/data-2"}}, []corev1.KeyToPath{{Key: "data-2", Path: "path/to/data-2", Mode: ptr(int32(0o400))}}
	name := corev1.LocalObjectReference{Name: "cm"}
	podname := corev1.DownwardAPIVolumeFile{Path: "podname", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}
	podnameModed := podname
	podnameModed.Mode = ptr(int32(0o400))
	config := func(mode *int32, items []corev1.KeyToPath) corev1.VolumeSource {
		return corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: name, DefaultMode: mode, Items: items}}
	}
	secret := func(mode *int32, items []corev1.KeyToPath) corev1.VolumeSource {
		return corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec", DefaultMode: mode, Items: items}}
	}
	projected := func(mode *int32, sources ...corev1.VolumeProjection) corev1.VolumeSource {
		return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: mode, Sources: sources}}
	}
	pConfig := func(items []corev1.KeyToPath) corev1.VolumeProjection {
		return corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: name, Items: items}}
	}
	pSecret := func(items []corev1.KeyToPath) corev1.VolumeProjection {
		return corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}, Items: items}}
	}
	pDown := corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{podname}}}
	for i, row := range []struct {
		source       corev1.VolumeSource
		file         string
		uid, fsGroup int64
		want         string
	}{
		{config(nil, nil), "data-1", 0, 0, "-rw-r--r-- 0 0 value-1"},
		{config(ptr(int32(0o400)), nil), "data-1", 0, 0, "-r-------- 0 0 value-1"},
		{config(ptr(int32(0o440)), nil), "data-1", 1000, 1001, "-r--r----- 0 1001 value-1"},
		{config(nil, nil), "data-1", 1000, 0, "-rw-r--r-- 0 0 value-1"},
		{config(nil, item), "path/to/data-2", 0, 0, "-rw-r--r-- 0 0 value-2"},
		{config(nil, moded), "path/to/data-2", 0, 0, "-r-------- 0 0 value-2"},
		{config(nil, item), "path/to/data-2", 1000, 0, "-rw-r--r-- 0 0 value-2"},
		{config(nil, item), "path/to/data-2", 1000, 1001, "-rw-r--r-- 0 1001 value-2"},
		{secret(nil, nil), "data-1", 0, 0, "-rw-r--r-- 0 0 value-1"},
		{secret(ptr(int32(0o400)), nil), "data-1", 0, 0, "-r-------- 0 0 value-1"},
		{secret(ptr(int32(0o440)), nil), "data-1", 1000, 1001, "-r--r----- 0 1001 value-1"},
		{secret(nil, item), "path/to/data-2", 0, 0, "-rw-r--r-- 0 0 value-2"},
		{secret(nil, moded), "path/to/data-2", 0, 0, "-r-------- 0 0 value-2"},
		{projected(nil, pConfig(nil)), "data-1", 0, 0, "-rw-r--r-- 0 0 value-1"},
		{projected(ptr(int32(0o400)), pConfig(nil)), "data-1", 0, 0, "-r-------- 0 0 value-1"},
		{projected(nil, pConfig(moded)), "path/to/data-2", 0, 0, "-r-------- 0 0 value-2"},
		{projected(nil, pConfig(nil)), "data-1", 1000, 0, "-rw-r--r-- 0 0 value-1"},
		{projected(nil, pSecret(nil)), "data-1", 0, 0, "-rw-r--r-- 0 0 value-1"},
		{projected(ptr(int32(0o440)), pSecret(nil)), "data-1", 1000, 1001, "-r--r----- 0 1001 value-1"},
		{projected(nil, pSecret(moded)), "path/to/data-2", 0, 0, "-r-------- 0 0 value-2"},
		{projected(ptr(int32(0o400)), pDown), "podname", 0, 0, "-r-------- 0 0 mode-21"},
		{corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{podname}}}, "podname", 0, 0, "-rw-r--r-- 0 0 mode-22"},
		{corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{DefaultMode: ptr(int32(0o400)), Items: []corev1.DownwardAPIVolumeFile{podname}}}, "podname", 0, 0, "-r-------- 0 0 mode-23"},
		{corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{podnameModed}}}, "podname", 0, 0, "-r-------- 0 0 mode-24"},
		{corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{DefaultMode: ptr(int32(0o440)), Items: []corev1.DownwardAPIVolumeFile{podname}}}, "podname", 1001, 1002, "-r--r----- 0 1002 mode-25"},
		{projected(nil, pConfig([]corev1.KeyToPath{{Key: "data-1", Path: "all/cm"}}), pSecret([]corev1.KeyToPath{{Key: "data-1", Path: "all/sec"}}), pDown), "all/sec", 0, 0, "-rw-r--r-- 0 0 value-1"},
	} {
		// The mount is read by one that is not the pod's own user too, so the id only matters to the kernel.
		p := mounted(shell(fmt.Sprint("mode-", i+1), fmt.Sprintf(`f=$(readlink -f /v/%s); stat -c '%%A %%u %%g' $f | tr '\n' ' '; cat $f`, row.file)), row.source)
		if row.uid != 0 {
			as(p, row.uid, row.fsGroup)
		}
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			one := *s
			one.T = t
			one.equal(row.file, strings.TrimSpace(one.output(p)), row.want)
		})
	}
}
