package csi

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	// Name is the folder of the plugin's volumes.
	Name = "kubernetes.io~csi"

	recordFile = "vol_data.json"
	persistent = "Persistent"
	ephemeral  = "Ephemeral"
)

// record is what is on disk of a volume of a pod, in upstream's file and its words.
type record struct {
	Driver     string `json:"driverName"`
	Handle     string `json:"volumeHandle"`
	Volume     string `json:"specVolID"` // the PersistentVolume's or the pod's name of it
	Node       string `json:"nodeName"`
	Lifecycle  string `json:"volumeLifecycleMode"`
	Attachment string `json:"attachmentID,omitempty"` // the VolumeAttachment's name, of one that has to be attached
	Block      bool   `json:"keelson.dev/block,omitempty"`
	Ready      bool   `json:"keelson.dev/ready,omitempty"` // every step up to the pod's use is done
}

// errNoRecord means that nothing was begun, or everything was undone.
var errNoRecord = errors.New("no record of a volume")

// readRecord reads a record. One that cannot be understood is an error: guessing could take down another's volume.
func readRecord(dir string) (record, error) {
	raw, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errNotDir) {
		return record{}, errNoRecord
	}
	if err != nil {
		return record{}, err
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return record{}, fmt.Errorf("%s: %w", filepath.Join(dir, recordFile), err)
	}
	if r.Driver == "" || r.Handle == "" {
		return record{}, fmt.Errorf("%s names no volume", filepath.Join(dir, recordFile))
	}
	return r, nil
}

// write replaces the record at once: a crash leaves the old one or the new one.
func (r record) write(dir string) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, recordFile), raw)
}

func replace(path string, raw []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// paths are where a volume of a pod is.
type paths struct {
	target  string // where it is published
	staging string // the folder that the driver stages it in
	stage   string // the folder that goes when it is unstaged: staging or what is above it
}

func (p *Plugin) base() string { return filepath.Join(p.cfg.Root, "plugins", "kubernetes.io", "csi") }

func (p *Plugin) paths(r record, uid, dir string) paths {
	if r.Block {
		devices := filepath.Join(p.base(), "volumeDevices")
		staging := filepath.Join(devices, "staging", r.Volume)
		return paths{target: filepath.Join(devices, "publish", r.Volume, uid), staging: staging, stage: staging}
	}
	stage := filepath.Join(p.base(), r.Driver, fmt.Sprintf("%x", sha256.Sum256([]byte(r.Handle))))
	return paths{target: filepath.Join(dir, "mount"), staging: filepath.Join(stage, "globalmount"), stage: stage}
}

// AttachmentName is the name of the VolumeAttachment of a volume on a node.
func AttachmentName(handle, driver, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(handle+driver+node)))
}

// inlineHandle is the handle of a volume that lives with a pod.
func inlineHandle(uid, volume string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(uid+volume)))
}
