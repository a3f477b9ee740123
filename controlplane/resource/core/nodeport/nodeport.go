package nodeport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/storage"
)

// What a client reads at the port's field.
var (
	ErrFull  = errors.New("range is full")
	ErrTaken = errors.New("provided port is already allocated")
)

// orphanAge is longer than a request may take: an older entry without its Service is a leftover.
const orphanAge = 2 * time.Minute

// Owner says who has a port, and since when.
type Owner struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
	Since     time.Time `json:"since"`
}

// Ledger is the record of taken ports.
type Ledger struct {
	// Storage is the Services' storage, Key where the record lies in it: under none of the keys of Services.
	Storage storage.Interface
	Key     string
	Range   net.PortRange
	// InUse says whether the owner exists and uses the port. It is asked about old entries only.
	InUse func(ctx context.Context, port int32, o Owner) bool
}

// Request is what one Service needs: these ports, and count further ones, whichever are free.
type Request struct {
	Ports []int32
	Any   int
}

// RefusedError is a port that cannot be had.
type RefusedError struct {
	Port  int32
	Cause error
}

func (e *RefusedError) Error() string { return e.Cause.Error() }
func (e *RefusedError) Unwrap() error { return e.Cause }

// Take gives the owner all the ports of the request, or none. It returns the ports chosen for Any. The error is a
// *RefusedError for a port that is taken or out of range, and wraps ErrFull if too few are free.
func (l Ledger) Take(ctx context.Context, owner Owner, r Request, dryRun bool) ([]int32, error) {
	chosen, err := l.take(ctx, owner, r, dryRun)
	if !dryRun {
		observe(r, err)
	}
	return chosen, err
}

func (l Ledger) take(ctx context.Context, owner Owner, r Request, dryRun bool) ([]int32, error) {
	for _, port := range r.Ports {
		if !l.Range.Contains(int(port)) {
			return nil, &RefusedError{port, fmt.Errorf("provided port is not in the valid range. The range of valid ports is %s", &l.Range)}
		}
	}
	var chosen []int32
	err := l.update(ctx, dryRun, func(taken map[int32]Owner) error {
		for _, port := range r.Ports {
			if !l.free(ctx, taken, port) {
				return &RefusedError{port, ErrTaken}
			}
			taken[port] = owner
		}
		var err error
		chosen, err = l.choose(ctx, taken, owner, r.Any)
		return err
	})
	return chosen, err
}

// choose takes count free ports, those above the part that is left to ports chosen by hand first.
func (l Ledger) choose(ctx context.Context, taken map[int32]Owner, owner Owner, count int) ([]int32, error) {
	if count == 0 {
		return nil, nil
	}
	chosen := make([]int32, 0, count)
	low := reserved(l.Range.Size)
	for _, mayReclaim := range []bool{false, true} {
		for _, part := range [][2]int{{low, l.Range.Size}, {0, low}} {
			for _, at := range rand.Perm(part[1] - part[0]) {
				port := int32(l.Range.Base + part[0] + at) //nolint:gosec // ports are below 65536
				if _, has := taken[port]; has && (!mayReclaim || !l.free(ctx, taken, port)) {
					continue
				}
				taken[port] = owner
				if chosen = append(chosen, port); len(chosen) == count {
					return chosen, nil
				}
			}
		}
	}
	return nil, ErrFull
}

// reserved is min(max(16, size/32), 128), and nothing of a range as small as 16.
func reserved(size int) int {
	if size <= 16 {
		return 0
	}
	return min(max(16, size/32), 128)
}

// free is true for a port that nobody has, or whose entry is a leftover.
func (l Ledger) free(ctx context.Context, taken map[int32]Owner, port int32) bool {
	o, has := taken[port]
	return !has || time.Since(o.Since) > orphanAge && !l.InUse(ctx, port, o)
}

// Release gives the owner's ports back. A port that another has by now is left alone.
func (l Ledger) Release(ctx context.Context, owner Owner, ports []int32) error {
	if len(ports) == 0 {
		return nil
	}
	return l.update(ctx, false, func(taken map[int32]Owner) error {
		for _, port := range ports {
			if taken[port].UID == owner.UID {
				delete(taken, port)
			}
		}
		return nil
	})
}

// update changes the record atomically. change may be called several times, each time with the record as it is.
func (l Ledger) update(ctx context.Context, dryRun bool, change func(map[int32]Owner) error) error {
	if dryRun {
		record := &corev1.RangeAllocation{}
		if err := l.Storage.Get(ctx, l.Key, storage.GetOptions{IgnoreNotFound: true}, record); err != nil {
			return fmt.Errorf("read node ports: %w", err)
		}
		taken, err := decode(record)
		if err != nil {
			return err
		}
		return change(taken)
	}
	out := &corev1.RangeAllocation{}
	err := l.Storage.GuaranteedUpdate(ctx, l.Key, out, true, nil, storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
		record, ok := obj.(*corev1.RangeAllocation)
		if !ok {
			return nil, fmt.Errorf("update node ports: the record is a %T", obj)
		}
		taken, err := decode(record)
		if err != nil {
			return nil, err
		}
		if err := change(taken); err != nil {
			return nil, err
		}
		record.Range = l.Range.String()
		record.Data, err = json.Marshal(taken)
		return record, err
	}), nil)
	if err != nil {
		return fmt.Errorf("update node ports: %w", err)
	}
	return nil
}

func decode(record *corev1.RangeAllocation) (map[int32]Owner, error) {
	taken := map[int32]Owner{}
	if len(record.Data) == 0 {
		return taken, nil
	}
	if err := json.Unmarshal(record.Data, &taken); err != nil {
		return nil, fmt.Errorf("read node ports: %w", err)
	}
	return taken, nil
}
