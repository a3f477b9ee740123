package act

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// userIDs is how many user and group IDs a pod with a user namespace has. Blocks of that size divide the 32 bits; block 0 is the node's own
// (KEP-127).
const userIDs = 1 << 16

// usernsFile is the pod's block, in the pod's directory and with its life; upstream's form, so that either kubelet reads the other's.
type usernsFile struct {
	UIDs []usernsRange `json:"uidMappings"`
	GIDs []usernsRange `json:"gidMappings"`
}

type usernsRange struct {
	Host      uint32 `json:"hostId"`
	Container uint32 `json:"containerId"`
	Length    uint32 `json:"length"`
}

var errNoUserns = errors.New("hostUsers: false is not supported by this node: its runtime has no user namespaces for pods")

// separated tells whether a pod wants users of its own.
func separated(pod *corev1.Pod) bool { return pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers }

// users returns the user namespace of a pod, nil for the node's. Its block of IDs is chosen when the pod is first asked about and is the
// same for as long as the pod's directory exists.
func (e *Executor) users(pod *corev1.Pod) (*runtimeapi.UserNamespace, error) {
	if !separated(pod) {
		return nil, nil
	}
	e.usersMu.Lock()
	defer e.usersMu.Unlock()
	path := filepath.Join(e.PodDir(pod.UID), "userns")
	r, err := readUsers(path)
	if errors.Is(err, os.ErrNotExist) {
		if r, err = e.freeUsers(); err == nil {
			err = writeUsers(path, r)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	ids := []*runtimeapi.IDMapping{{HostId: r.Host, ContainerId: r.Container, Length: r.Length}}
	return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}, nil
}

func readUsers(path string) (usernsRange, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return usernsRange{}, err
	}
	var f usernsFile
	if err := json.Unmarshal(b, &f); err != nil {
		return usernsRange{}, fmt.Errorf("read %s: %w", path, err)
	}
	if len(f.UIDs) != 1 || len(f.GIDs) != 1 || f.UIDs[0] != f.GIDs[0] || f.UIDs[0].Length != userIDs || f.UIDs[0].Host < userIDs || f.UIDs[0].Container != 0 {
		return usernsRange{}, fmt.Errorf("read %s: not a block of %d IDs above the node's own", path, userIDs)
	}
	return f.UIDs[0], nil
}

// writeUsers leaves either the whole file or none. It need not survive a power cut: nor do the pod's processes.
func writeUsers(path string, r usernsRange) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil { // a pull may come before everything else
		return err
	}
	b, err := json.Marshal(usernsFile{[]usernsRange{r}, []usernsRange{r}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// freeUsers finds the first block that no pod's directory names. Preconditions: usersMu is held.
func (e *Executor) freeUsers() (usernsRange, error) {
	files, err := filepath.Glob(filepath.Join(e.cfg.Root, "pods", "*", "userns"))
	if err != nil {
		return usernsRange{}, err
	}
	taken := map[uint32]bool{}
	for _, f := range files {
		// A file that cannot be read may hide a block in use, perhaps of a pod that is being removed: rather no pod than two with
		// the same users.
		r, err := readUsers(f)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return usernsRange{}, err
		}
		taken[r.Host/userIDs] = true
	}
	for block := uint32(1); block < 1<<16-1; block++ {
		if !taken[block] {
			return usernsRange{Host: block * userIDs, Length: userIDs}, nil
		}
	}
	return usernsRange{}, errors.New("all IDs are in use")
}

// canSeparate asks the runtime whether it has user namespaces: one that ignores the request would make a pod that believes itself apart from the
// node's users and is not.
func (e *Executor) canSeparate(ctx context.Context, pod *corev1.Pod, handler string) error {
	if !separated(pod) {
		return nil
	}
	f, err := e.features(ctx, handler)
	if err != nil {
		return err
	}
	if !f.GetUserNamespaces() {
		return errNoUserns
	}
	return nil
}

// features asks the runtime what one of its handlers can do; nil for a handler that it does not name.
func (e *Executor) features(ctx context.Context, handler string) (*runtimeapi.RuntimeHandlerFeatures, error) {
	status, err := e.CRI.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return nil, err
	}
	for _, h := range status.GetRuntimeHandlers() {
		if h.GetName() == handler {
			return h.GetFeatures(), nil
		}
	}
	return nil, nil
}
