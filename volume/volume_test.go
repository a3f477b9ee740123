package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/volume/mount"
	"keelson.dev/keelson/volume/mount/mounttest"
)

func TestMain(m *testing.M) { mounttest.Main(m) }

// world is the API and the clock of a test.
type world struct {
	mu      sync.Mutex
	maps    map[string]*corev1.ConfigMap
	secrets map[string]*corev1.Secret
	issued  int
	fail    error
	now     time.Time
}

func (w *world) lock() func() { w.mu.Lock(); return w.mu.Unlock }

func setup(t *testing.T) (*Manager, *world) {
	t.Helper()
	mounttest.Need(t)
	w := &world{maps: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{}, now: time.Unix(1e9, 0)}
	missing := func(kind, name string) error {
		return apierrors.NewNotFound(schema.GroupResource{Resource: kind}, name)
	}
	m := New(Config{Root: t.TempDir()}, Deps{
		GetConfigMap: func(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
			defer w.lock()()
			if cm := w.maps[name]; cm != nil {
				return cm, nil
			}
			return nil, missing("configmaps", name)
		},
		GetSecret: func(_ context.Context, _, name string) (*corev1.Secret, error) {
			defer w.lock()()
			if s := w.secrets[name]; s != nil {
				return s, nil
			}
			return nil, missing("secrets", name)
		},
		Token: func(_ context.Context, ns, sa string, r *authv1.TokenRequest) (*authv1.TokenRequest, error) {
			defer w.lock()()
			if w.fail != nil {
				return nil, w.fail
			}
			w.issued++
			r.Status = authv1.TokenRequestStatus{Token: fmt.Sprintf("%s/%s/%v/%d", ns, sa, r.Spec.Audiences, w.issued),
				ExpirationTimestamp: metav1.NewTime(w.now.Add(time.Duration(*r.Spec.ExpirationSeconds) * time.Second))}
			return r, nil
		},
		Allocatable: func(context.Context) (corev1.ResourceList, error) {
			return corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("1Gi")}, nil
		},
		Now: func() time.Time { defer w.lock()(); return w.now },
	})
	t.Cleanup(func() {
		ids, err := m.List()
		if err != nil {
			t.Error(err)
		}
		for _, id := range ids {
			if err := m.Unmount(context.Background(), id); err != nil {
				t.Error("unmount:", err)
			}
		}
		if b, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(b), m.cfg.Root) {
			t.Error("a mount is left behind")
		}
	})
	return m, w
}

// pod has one container that mounts all the volumes.
func pod(vols ...corev1.Volume) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "uid-1", Labels: map[string]string{"b": "2", "a": "1\n"}},
		Spec: corev1.PodSpec{ServiceAccountName: "sa", Volumes: vols, Containers: []corev1.Container{{Name: "c"}}}}
	for _, v := range vols {
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
	}
	return p
}

func vol(name string, s corev1.VolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: s}
}

func mustMount(t *testing.T, m *Manager, p *corev1.Pod) map[string]Mounted {
	t.Helper()
	got, err := m.Mount(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func fstype(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Type)
}

func TestEmptyDir(t *testing.T) {
	m, _ := setup(t)
	limit := resource.MustParse("1Mi")
	g := int64(4321)
	p := pod(vol("disk", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		vol("mem", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory", SizeLimit: &limit}}))
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &g}
	got := mustMount(t, m, p)
	if want := filepath.Join(m.cfg.Root, "pods/uid-1/volumes/kubernetes.io~empty-dir/disk"); got["disk"].HostPath != want {
		t.Errorf("path %s, want %s", got["disk"].HostPath, want)
	}
	for name, v := range got {
		st, err := os.Stat(v.HostPath)
		if err != nil || st.Mode().Perm() != 0o777 || st.Mode()&os.ModeSetgid == 0 || st.Sys().(*syscall.Stat_t).Gid != uint32(g) {
			t.Errorf("%s: %v %v, want 0777, setgid, group %d", name, st, err, g)
		}
	}
	if fstype(t, got["mem"].HostPath) != unix.TMPFS_MAGIC {
		t.Error("medium Memory is not tmpfs")
	}
	if err := os.WriteFile(filepath.Join(got["mem"].HostPath, "big"), make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("2 MiB in 1 MiB: %v, want no space", err)
	}
	file := filepath.Join(got["disk"].HostPath, "kept")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustMount(t, m, p) // again: a restart of the container, or of us
	read(t, file)
	for range 2 {
		if err := m.Unmount(t.Context(), p.UID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(m.cfg.Root, "pods/uid-1")); !os.IsNotExist(err) {
		t.Errorf("the pod's folder is still there: %v", err)
	}
}

func TestHostPathTypes(t *testing.T) {
	m, _ := setup(t)
	dir := t.TempDir()
	file, sock, dev := filepath.Join(dir, "file"), filepath.Join(dir, "sock"), filepath.Join(dir, "blk")
	os.WriteFile(file, nil, 0o600)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: sock}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(dev, unix.S_IFBLK|0o600, 7<<8|200); err != nil {
		t.Fatal(err)
	}
	os.Symlink("file", filepath.Join(dir, "link"))
	for _, c := range []struct {
		typ, path string
		ok        bool
	}{
		{"", "nothing", true}, {"Directory", "", true}, {"Directory", "file", false}, {"Directory", "nothing", false},
		{"File", "file", true}, {"File", "", false}, {"File", "link", true}, {"File", "nothing", false}, {"File", "file/x", false},
		{"Socket", "sock", true}, {"Socket", "file", false}, {"BlockDevice", "blk", true}, {"BlockDevice", "file", false},
		{"CharDevice", "../../../../../../../../dev/null", true}, {"CharDevice", "blk", false},
		{"DirectoryOrCreate", "new/dir", true}, {"DirectoryOrCreate", "file", false},
		{"FileOrCreate", "newfile", true}, {"FileOrCreate", "no/parent", false}, {"FileOrCreate", "", false}, {"Nonsense", "file", false},
	} {
		typ := corev1.HostPathType(c.typ)
		p := pod(vol("h", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: filepath.Join(dir, c.path), Type: &typ}}))
		got, err := m.Mount(t.Context(), p)
		if (err == nil) != c.ok {
			t.Errorf("type %q on %q: %v, want ok %v", c.typ, c.path, err, c.ok)
		}
		if err == nil && got["h"].HostPath != filepath.Join(dir, c.path) {
			t.Errorf("path %s", got["h"].HostPath)
		}
	}
}

func TestConfigMapLives(t *testing.T) {
	m, w := setup(t)
	w.maps["cm"] = &corev1.ConfigMap{Data: map[string]string{"a": "1", "b": "2"}, BinaryData: map[string][]byte{"bin": {0xff, 0}}}
	mode, itemMode := int32(0o640), int32(0o400)
	p := pod(vol("all", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, DefaultMode: &mode}}),
		vol("some", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"},
			Items: []corev1.KeyToPath{{Key: "a", Path: "sub/dir/x", Mode: &itemMode}}}}))
	got := mustMount(t, m, p)
	all, some := got["all"].HostPath, got["some"].HostPath
	if read(t, all+"/a") != "1" || read(t, all+"/bin") != "\xff\x00" || read(t, some+"/sub/dir/x") != "1" || !got["all"].ReadOnly {
		t.Error("wrong content")
	}
	if st, _ := os.Stat(all + "/a"); st.Mode().Perm() != 0o640 {
		t.Errorf("default mode %v", st.Mode())
	}
	if st, _ := os.Stat(some + "/sub/dir/x"); st.Mode().Perm() != 0o400 {
		t.Errorf("item mode %v", st.Mode())
	}
	rev, _ := os.Readlink(all + "/..data")
	if err := m.Refresh(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.Readlink(all + "/..data"); again != rev {
		t.Error("a refresh without a change wrote a new revision")
	}
	w.maps["cm"] = &corev1.ConfigMap{Data: map[string]string{"a": "new", "c": "3"}}
	w.now = w.now.Add(time.Second)
	if err := m.Refresh(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if read(t, all+"/a") != "new" || read(t, all+"/c") != "3" {
		t.Error("the change did not arrive")
	}
	entries, _ := os.ReadDir(all)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) != 4 { // ..<rev>, ..data, a, c
		t.Errorf("left: %v", names)
	}
}

func TestMissingAndOptional(t *testing.T) {
	m, w := setup(t)
	yes := true
	p := pod(vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "gone"}}}),
		vol("s", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "gone"}}))
	_, err := m.Mount(t.Context(), p)
	for _, want := range []string{`MountVolume.SetUp failed for volume "cm" : configmap "gone" not found`, `MountVolume.SetUp failed for volume "s" : secret "gone" not found`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	p.Spec.Volumes[0].ConfigMap.Optional, p.Spec.Volumes[1].Secret.Optional = &yes, &yes
	got := mustMount(t, m, p)
	w.secrets["gone"] = &corev1.Secret{Data: map[string][]byte{"k": []byte("v")}}
	w.now = w.now.Add(time.Second)
	if err := m.Refresh(t.Context(), p); err != nil || read(t, got["s"].HostPath+"/k") != "v" {
		t.Errorf("an optional secret that appears later: %v", err)
	}
	w.maps["gone"] = &corev1.ConfigMap{}
	p.Spec.Volumes[0].ConfigMap.Optional = nil
	p.Spec.Volumes[0].ConfigMap.Items = []corev1.KeyToPath{{Key: "nokey", Path: "x"}}
	if _, err := m.Mount(t.Context(), p); err == nil || !strings.Contains(err.Error(), "non-existent config key: nokey") {
		t.Errorf("missing key: %v", err)
	}
	p.Spec.Containers[0].VolumeMounts = nil
	if got, err := m.Mount(t.Context(), p); err != nil || len(got) != 0 {
		t.Errorf("a volume that nobody mounts: %v %v, want it left alone", got, err)
	}
}

func TestSecretsAreOnTmpfs(t *testing.T) {
	m, w := setup(t)
	w.secrets["s"] = &corev1.Secret{Data: map[string][]byte{"k": []byte("v")}}
	g := int64(77)
	p := pod(vol("s", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", DefaultMode: ptr(int32(0o400))}}))
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &g}
	dir := mustMount(t, m, p)["s"].HostPath
	st, err := os.Stat(dir + "/k")
	if err != nil || st.Mode().Perm() != 0o440 || st.Sys().(*syscall.Stat_t).Gid != 77 || fstype(t, dir) != unix.TMPFS_MAGIC {
		t.Errorf("%v %v: want 0440 of group 77 on tmpfs", st, err)
	}
}

func ptr[T any](v T) *T { return &v }

func TestDownwardAndProjected(t *testing.T) {
	m, w := setup(t)
	w.maps["ca"] = &corev1.ConfigMap{Data: map[string]string{"ca.crt": "CA"}}
	item := func(path, field string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: path, FieldRef: &corev1.ObjectFieldSelector{FieldPath: field}}
	}
	res := func(path, name, div string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: path, ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "c", Resource: name, Divisor: resource.MustParse(div)}}
	}
	p := pod(vol("d", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
		item("labels", "metadata.labels"), item("b", "metadata.labels['b']"), res("cpu", "limits.cpu", "1m"), res("mem", "requests.memory", "1Mi"), res("cpus", "limits.cpu", "0")}}}),
		vol("p", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr(int64(600)), Audience: "vault"}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "ca"}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{item("namespace", "metadata.namespace")}}}}}}))
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"memory": resource.MustParse("1025Ki")}
	got := mustMount(t, m, p)
	d, pr := got["d"].HostPath, got["p"].HostPath
	for path, want := range map[string]string{d + "/labels": "a=\"1\\n\"\nb=\"2\"", d + "/b": "2", d + "/cpu": "2000", d + "/mem": "2", d + "/cpus": "2",
		pr + "/token": "ns/sa/[vault]/1", pr + "/ca.crt": "CA", pr + "/namespace": "ns"} {
		if got := read(t, path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestHostile_PS28(t *testing.T) {
	m, w := setup(t)
	p := pod(vol("p", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr(int64(600))}}}}}))
	p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(1234))}
	dir := mustMount(t, m, p)["p"].HostPath
	st, err := os.Stat(dir + "/token")
	if err != nil || st.Mode().Perm() != 0o600 || st.Sys().(*syscall.Stat_t).Uid != 1234 {
		t.Errorf("%v %v: want 0600 of user 1234", st, err)
	}
	start := w.now
	if at := m.RefreshAt(p.UID); !at.Equal(start.Add(480 * time.Second)) {
		t.Errorf("renewal at %v, want at 80 %% of the life, %v", at, start.Add(480*time.Second))
	}
	for _, step := range []struct {
		after time.Duration
		fail  error
		want  string
	}{
		{479 * time.Second, nil, "ns/sa/[]/1"},
		{481 * time.Second, errors.New("api is down"), "ns/sa/[]/1"}, // still valid
		{482 * time.Second, nil, "ns/sa/[]/2"},
	} {
		w.mu.Lock()
		w.now, w.fail = start.Add(step.after), step.fail
		w.mu.Unlock()
		if err := m.Refresh(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if got := read(t, dir+"/token"); got != step.want {
			t.Errorf("after %v: token %q, want %q", step.after, got, step.want)
		}
	}
	w.now, w.fail = start.Add(time.Hour), errors.New("api is down")
	if err := m.Refresh(t.Context(), p); err == nil || !strings.Contains(err.Error(), "api is down") {
		t.Errorf("an expired token that cannot be renewed: %v, want the error", err)
	}
}

func empty(t *testing.T, m *Manager) (*corev1.Pod, Mounted) {
	p := pod(vol("v", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}))
	return p, mustMount(t, m, p)["v"]
}

func TestSubPath(t *testing.T) {
	m, w := setup(t)
	p, v := empty(t, m)
	got, err := m.SubPath(t.Context(), p, "c", 0, v, "v", "a/b")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(got+"/f", []byte("x"), 0o600); err != nil || read(t, v.HostPath+"/a/b/f") != "x" {
		t.Errorf("the subpath is not the volume's folder: %v", err)
	}
	if got, err = m.SubPath(t.Context(), p, "c", 1, v, "v", "a/b/f"); err != nil || read(t, got) != "x" {
		t.Errorf("a file: %v", err)
	}
	if _, err := m.SubPath(t.Context(), p, "c", 1, v, "v", "a"); err != nil { // a file before, a folder now
		t.Error(err)
	}
	os.Symlink("b/f", v.HostPath+"/a/inside")
	if got, err = m.SubPath(t.Context(), p, "c", 2, v, "v", "a/inside"); err != nil || read(t, got) != "x" {
		t.Errorf("a link that stays inside: %v", err)
	}
	w.maps["cm"] = &corev1.ConfigMap{Data: map[string]string{"app.conf": "1"}}
	p.Spec.Volumes = append(p.Spec.Volumes, vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}))
	p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "cm"})
	if got, err = m.SubPath(t.Context(), p, "c", 3, mustMount(t, m, p)["cm"], "cm", "app.conf"); err != nil || read(t, got) != "1" {
		t.Errorf("a key of a config map: %v", err)
	}
}

func TestHostile_PS1(t *testing.T) {
	m, _ := setup(t)
	p, v := empty(t, m)
	for link, to := range map[string]string{"root": "/", "up": "../../..", "abs": "/etc", "self": v.HostPath, "proc": "/proc/self/root"} {
		os.Symlink(to, filepath.Join(v.HostPath, link))
		for _, sub := range []string{link, link + "/etc"} {
			if _, err := m.SubPath(t.Context(), p, "c", 0, v, "v", sub); !errors.Is(err, mount.ErrOutside) {
				t.Errorf("subPath %s -> %s: %v, want ErrOutside", sub, to, err)
			}
		}
	}
}

func TestHostile_PS2(t *testing.T) {
	m, _ := setup(t)
	p, v := empty(t, m)
	outside := t.TempDir()
	os.WriteFile(outside+"/secret", []byte("host"), 0o600)
	os.Mkdir(v.HostPath+"/good", 0o755)
	os.Symlink(outside, v.HostPath+"/evil")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // a container that swaps the folder for a link as fast as it can; ends with stop
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, v.HostPath+"/good", unix.AT_FDCWD, v.HostPath+"/evil", unix.RENAME_EXCHANGE)
			}
		}
	}()
	hits := 0
	for range 300 {
		got, err := m.SubPath(t.Context(), p, "c", 0, v, "v", "good")
		if err != nil {
			hits++
			continue
		}
		if _, err := os.Stat(got + "/secret"); err == nil {
			t.Error("the host's folder was mounted")
			break
		}
	}
	close(stop)
	<-done
	t.Logf("%d of 300 met the link and were refused", hits)
}

func TestHostile_PS3(t *testing.T) {
	m, _ := setup(t)
	p, v := empty(t, m)
	for _, bad := range []string{"..", "../x", "a/../../x", "/etc", "a/.."} {
		if _, err := m.SubPath(t.Context(), p, "c", 0, v, "v", bad); !errors.Is(err, mount.ErrOutside) {
			t.Errorf("subPath %q: %v, want ErrOutside", bad, err)
		}
	}
	if _, err := m.SubPath(t.Context(), p, "c", 0, v, "v", "`id`$(x)"); err != nil { // odd, but a name
		t.Error(err)
	}
	if _, err := m.SubPath(t.Context(), p, "c", 0, v, "v", "fixed"); err != nil {
		t.Error("after it was fixed:", err)
	}
}

func TestHostile_PS4(t *testing.T) {
	m, w := setup(t)
	w.maps["cm"] = &corev1.ConfigMap{Data: map[string]string{"a": "1", "d": "2"}}
	p := pod(vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"},
		Items: []corev1.KeyToPath{{Key: "a", Path: "a"}, {Key: "d", Path: "dir/d"}}}}))
	dir := mustMount(t, m, p)["cm"].HostPath
	host := t.TempDir()
	os.WriteFile(host+"/a", []byte("host"), 0o600)
	os.Mkdir(host+"/dir", 0o755)
	os.WriteFile(host+"/dir/d", []byte("host"), 0o600)
	intact := func(when string) {
		t.Helper()
		if read(t, host+"/a") != "host" || read(t, host+"/dir/d") != "host" {
			t.Fatalf("%s: the host's files were changed", when)
		}
		if e, _ := os.ReadDir(host); len(e) != 2 {
			t.Fatalf("%s: the host's folder has %v", when, e)
		}
	}
	for _, evil := range []func(){
		func() { os.Remove(dir + "/..data"); os.Symlink(host, dir+"/..data") },
		func() {
			rev, _ := os.Readlink(dir + "/..data")
			os.RemoveAll(dir + "/" + rev)
			os.Symlink(host, dir+"/"+rev)
		},
		func() { os.Remove(dir + "/dir"); os.Symlink(host+"/dir", dir+"/dir") },
		func() { os.Symlink(host, dir+"/..data_tmp") },
		func() { os.Symlink(host, dir+"/..2020_01_01_00_00_00.000000001") },
		func() { os.Remove(dir + "/a"); os.Mkdir(dir+"/a", 0o755); os.Symlink(host, dir+"/a/x") },
	} {
		evil()
		w.now = w.now.Add(time.Second)
		w.maps["cm"] = &corev1.ConfigMap{Data: map[string]string{"a": w.now.String(), "d": "2"}}
		err := m.Refresh(t.Context(), p)
		intact("refresh")
		if err != nil {
			t.Logf("refused: %v", err)
			continue
		}
		if got := read(t, dir+"/a"); got != w.now.String() {
			t.Errorf("content after refresh: %q", got)
		}
	}
	os.Symlink(host, dir+"/left")
	if err := m.Unmount(t.Context(), p.UID); err != nil {
		t.Error(err)
	}
	intact("unmount")
}

func TestHostile_PS5(t *testing.T) {
	m, _ := setup(t)
	p := pod(vol("g", corev1.VolumeSource{GitRepo: &corev1.GitRepoVolumeSource{Repository: "/etc"}}))
	if _, err := m.Mount(t.Context(), p); err == nil || !strings.Contains(err.Error(), "gitRepo volumes are not supported") {
		t.Errorf("got %v", err)
	}
}

func TestHostile_PS6(t *testing.T) {
	m, _ := setup(t)
	dir := t.TempDir()
	os.Symlink("/proc/self/root/etc/passwd", dir+"/link")
	typ := corev1.HostPathDirectory
	p := pod(vol("h", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir + "/link", Type: &typ}}))
	if _, err := m.Mount(t.Context(), p); err == nil || !strings.Contains(err.Error(), "is not a directory") {
		t.Errorf("got %v", err)
	}
}

func TestHostile_PS22(t *testing.T) {
	m, _ := setup(t)
	p := pod(vol("v", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), vol("mem", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory"}}))
	got := mustMount(t, m, p)
	v := got["v"]
	if _, err := m.SubPath(t.Context(), p, "c", 0, v, "v", "sub"); err != nil {
		t.Fatal(err)
	}
	busy, err := os.Create(got["mem"].HostPath + "/open") // a leaked descriptor keeps the mount busy
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	// A privileged container left the host's folder mounted inside its volume.
	host := t.TempDir()
	os.WriteFile(host+"/precious", nil, 0o600)
	os.MkdirAll(v.HostPath+"/x/mnt", 0o755)
	if err := unix.Mount(host, v.HostPath+"/x/mnt", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(t.Context(), p.UID); !errors.Is(err, mount.ErrMounted) || !strings.Contains(err.Error(), "v/x/mnt") {
		t.Errorf("got %v, want ErrMounted that names the place", err)
	}
	if _, err := os.Stat(host + "/precious"); err != nil {
		t.Fatal("the host's file was deleted through the mount")
	}
	if on, _ := mount.Is(got["mem"].HostPath); on {
		t.Error("the busy tmpfs is still mounted")
	}
	unix.Unmount(v.HostPath+"/x/mnt", 0)
	if err := m.Unmount(t.Context(), p.UID); err != nil {
		t.Error("after it is gone:", err)
	}
}

func TestUnusableUID(t *testing.T) {
	m, _ := setup(t)
	if err := m.Unmount(t.Context(), "never-there"); err != nil {
		t.Error(err)
	}
	for _, uid := range []types.UID{"", "..", "../x", "a/b", "."} {
		p := pod()
		p.UID = uid
		if _, err := m.Mount(t.Context(), p); err == nil {
			t.Errorf("uid %q was taken", uid)
		}
	}
}

func BenchmarkMountUnmount(b *testing.B) {
	mounttest.Need(b)
	m := New(Config{Root: b.TempDir()}, Deps{
		GetConfigMap: func(context.Context, string, string) (*corev1.ConfigMap, error) {
			return &corev1.ConfigMap{Data: map[string]string{"ca.crt": "CA"}}, nil
		},
		Token: func(_ context.Context, _, _ string, r *authv1.TokenRequest) (*authv1.TokenRequest, error) {
			r.Status.Token = "t"
			return r, nil
		},
	})
	p := pod(vol("p", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "ca"}}}}}}))
	var up, down time.Duration
	n := 0
	for b.Loop() {
		t0 := time.Now()
		if _, err := m.Mount(b.Context(), p); err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		if err := m.Unmount(b.Context(), p.UID); err != nil {
			b.Fatal(err)
		}
		up, down, n = up+t1.Sub(t0), down+time.Since(t1), n+1
	}
	b.ReportMetric(float64(up.Microseconds())/float64(n), "us/mount")
	b.ReportMetric(float64(down.Microseconds())/float64(n), "us/unmount")
}
