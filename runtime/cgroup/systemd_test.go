package cgroup

import "testing"

func TestSlices(t *testing.T) {
	for _, c := range []struct {
		parts      []string
		name, path string
	}{
		{nil, "-.slice", "/"},
		{[]string{"", "kubepods"}, "kubepods.slice", "/kubepods.slice"},
		{[]string{"kubepods", "burstable", "pod1-2"}, "kubepods-burstable-pod1_2.slice", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"},
		{[]string{"my-root", "kubepods"}, "my_root-kubepods.slice", "/my_root.slice/my_root-kubepods.slice"},
	} {
		name := SliceName(c.parts...)
		path, err := SlicePath(name)
		if name != c.name || path != c.path || err != nil {
			t.Errorf("%q: %s at %s, %v; want %s at %s", c.parts, name, path, err, c.name, c.path)
		}
	}
	for _, bad := range []string{"", "kubepods", "/kubepods.slice", "a--b.slice", "-a.slice", "kubepods/pod.slice"} {
		if p, err := SlicePath(bad); err == nil {
			t.Errorf("%q is taken for the slice %s", bad, p)
		}
	}
}

func TestUnits(t *testing.T) {
	h := Hierarchy{Mode: V2, Mounts: map[string]string{"": Root}, Systemd: true}
	for path, kind := range map[string][2]bool{
		"/kubepods.slice/kubepods-pod1.slice": {true, false}, "/kubepods.slice/cri-containerd-ab.scope": {false, true}, "/kubepods/pod1": {false, false},
	} {
		g := h.Group(path)
		if got := [2]bool{g.isSlice(), g.isScope()}; got != kind {
			t.Errorf("%s: slice, scope %v, want %v", path, got, kind)
		}
		h := h
		h.Systemd = false
		if g := h.Group(path); g.isSlice() || g.isScope() {
			t.Errorf("%s is taken for a unit by the cgroupfs driver", path)
		}
	}
	if _, err := h.Group("/a.slice/nodash.scope").unit(nil); err == nil {
		t.Error("a scope without a prefix was taken")
	}
}
