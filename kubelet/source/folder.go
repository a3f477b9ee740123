package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// Annotations of static pods and their mirrors.
const (
	AnnotationSource = "kubernetes.io/config.source"
	AnnotationHash   = "kubernetes.io/config.hash"
	AnnotationMirror = "kubernetes.io/config.mirror"
)

// maxManifest bounds a manifest file, in bytes.
const maxManifest = 1 << 20

// settle is how long a folder must be quiet before it is read, so that a file is not read while it is written.
const settle = 100 * time.Millisecond

// Folder reads static pods from the manifests in one directory.
type Folder struct {
	dir, node string
	sink      Sink
	log       *slog.Logger
	seen      map[string]file // by file name; only Run's goroutine touches it
}

// file is what is known of one manifest: its last good pod and the content that was last judged.
type file struct {
	sum string
	pod *corev1.Pod
}

// NewFolder makes the source for the manifests in dir, as pods of node.
func NewFolder(dir, node string, sink Sink, log *slog.Logger) *Folder {
	return &Folder{dir: dir, node: node, sink: sink, log: log, seen: map[string]file{}}
}

// Run reads the folder now and whenever it changes, until ctx ends.
func (f *Folder) Run(ctx context.Context) error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of static pods: %w", err)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the folder of static pods: %w (is fs.inotify.max_user_instances used up?)", err)
	}
	defer w.Close()
	if err := w.Add(f.dir); err != nil {
		return fmt.Errorf("watch the folder of static pods %s: %w", f.dir, err)
	}
	f.scan()
	quiet := time.NewTimer(settle)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.Events:
			quiet.Reset(settle)
		case err := <-w.Errors: // an overflow lost events: the scan sees what they said
			f.log.Warn("watch of static pods", "dir", f.dir, "err", err)
			quiet.Reset(settle)
		case <-quiet.C:
			f.scan()
		}
	}
}

// scan compares the folder with what was seen. Names that begin with a dot are editors' business.
func (f *Folder) scan() {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		f.log.Error("read the folder of static pods", "dir", f.dir, "err", err)
		return // nothing is dropped because of a folder that cannot be read
	}
	found := map[string]bool{}
	for _, e := range entries {
		name := e.Name()
		ext := filepath.Ext(name)
		if e.IsDir() || strings.HasPrefix(name, ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, ext) {
			continue
		}
		found[name] = true
		f.read(name)
	}
	for name, old := range f.seen {
		if found[name] {
			continue
		}
		delete(f.seen, name)
		if old.pod != nil {
			f.sink.Drop(old.pod)
		}
	}
}

func (f *Folder) read(name string) {
	path := filepath.Join(f.dir, name)
	raw, err := readManifest(path)
	if err != nil {
		f.log.Error("read static pod: left as it was", "file", path, "err", err)
		return
	}
	digest := sha256.Sum256(raw)
	sum := hex.EncodeToString(digest[:])
	old := f.seen[name]
	if old.sum == sum {
		return
	}
	pod, err := Parse(raw, f.node, path)
	if err != nil {
		f.log.Error("static pod manifest is no good: left as it was", "file", path, "err", err)
		f.seen[name] = file{sum, old.pod}
		return
	}
	for other, o := range f.seen {
		if other != name && o.pod != nil && o.pod.Namespace == pod.Namespace && o.pod.Name == pod.Name {
			f.log.Error("two static pod manifests have the same name: the later one is ignored", "file", path, "other", other, "pod", pod.Name)
			f.seen[name] = file{sum, nil}
			return
		}
	}
	f.seen[name] = file{sum, pod}
	if old.pod != nil && old.pod.UID != pod.UID {
		f.sink.Drop(old.pod)
	}
	f.sink.Set(pod)
}

func readManifest(path string) ([]byte, error) {
	h, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if st, err := h.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("not a regular file"))
	}
	raw, err := io.ReadAll(io.LimitReader(h, maxManifest+1))
	if err == nil && len(raw) > maxManifest {
		err = fmt.Errorf("larger than %d bytes", maxManifest)
	}
	return raw, err
}

// Parse turns a manifest into a static pod of node: defaults filled in, named after the node, with a UID that
// follows from node, path and content, so that an unchanged file is the same pod after a restart.
func Parse(raw []byte, node, path string) (*corev1.Pod, error) {
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(raw, &pod); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	if pod.Kind != "Pod" || pod.APIVersion != "v1" {
		return nil, fmt.Errorf("manifest is %s %s, a static pod is v1 Pod", pod.APIVersion, pod.Kind)
	}
	if pod.Name == "" {
		return nil, errors.New("metadata.name: a static pod must have a name")
	}
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	pod.Name += "-" + strings.ToLower(node)
	if bad := validation.IsDNS1123Subdomain(pod.Name); len(bad) > 0 {
		return nil, fmt.Errorf("metadata.name %q: %s", pod.Name, strings.Join(bad, "; "))
	}
	if len(pod.Spec.Containers) == 0 {
		return nil, errors.New("spec.containers: a pod must have a container")
	}
	if err := refuse(&pod); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(node + "\x00" + path + "\x00" + string(raw)))
	pod.UID = types.UID(hex.EncodeToString(sum[:16]))
	pod.ResourceVersion, pod.DeletionTimestamp, pod.Status = "", nil, corev1.PodStatus{}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	delete(pod.Annotations, AnnotationMirror)
	pod.Annotations[AnnotationSource] = "file"
	pod.Annotations[AnnotationHash] = string(pod.UID)
	pod.Spec.NodeName = node
	Default(&pod)
	pod.Status.Phase = corev1.PodPending
	return &pod, nil
}

// refuse rejects what a static pod cannot have, since it depends on objects of the API (as upstream does).
func refuse(pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return errors.New("spec.serviceAccountName: static pods may not reference a service account")
	}
	if len(pod.Spec.EphemeralContainers) > 0 {
		return errors.New("spec.ephemeralContainers: static pods may not have ephemeral containers")
	}
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil || v.ConfigMap != nil || v.PersistentVolumeClaim != nil {
			return fmt.Errorf("spec.volumes %q: static pods may not reference API objects", v.Name)
		}
	}
	return nil
}
