package csi

import (
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// key names a volume as the node's status does.
func key(r record) corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName("kubernetes.io/csi/" + r.Driver + "^" + r.Handle)
}

// InUse names the attached volumes that must not be detached from this node, for its status.
func (p *Plugin) InUse() []corev1.UniqueVolumeName {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []corev1.UniqueVolumeName
	for _, name := range p.used {
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// OnUse has f called, quickly, whenever InUse gives another answer.
func (p *Plugin) OnUse(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changes = f
}

// put notes what a record's folder holds by now.
func (p *Plugin) put(dir string, r record) {
	p.mu.Lock()
	old := p.used[dir]
	if r.Attachment == "" {
		delete(p.used, dir)
	} else {
		p.used[dir] = key(r)
	}
	changed, tell := p.used[dir] != old, p.changes
	p.mu.Unlock()
	if changed {
		tell()
	}
}

// recall reads from disk what an earlier process left in use.
func (p *Plugin) recall() {
	dirs, err := p.records()
	if err != nil {
		p.log.Error("read the records of CSI volumes", "err", err)
	}
	for _, dir := range dirs {
		r, err := readRecord(dir)
		if err == nil {
			p.put(dir, r)
		} else if !errors.Is(err, errNoRecord) {
			p.log.Error("read the record of a CSI volume", "err", err)
		}
	}
}

// lastUser tells whether no other pod's volume of this node is the same.
func (p *Plugin) lastUser(rec record, dir string) (bool, error) {
	dirs, err := p.records()
	if err != nil {
		return false, err
	}
	for _, other := range dirs {
		if other == dir {
			continue
		}
		switch r, err := readRecord(other); {
		case errors.Is(err, errNoRecord):
		case err != nil:
			return false, err
		case key(r) == key(rec):
			return false, nil
		}
	}
	return true, nil
}
