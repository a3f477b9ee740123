package podstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// ErrNotFound is for an id that leads to no created object.
var ErrNotFound = errors.New("not found")

// minPrefix is the shortest beginning of an id that Get takes for it.
const minPrefix = 4

// record is what a Table holds: *Sandbox or *Container.
type record interface {
	id() string
	name() string
	state() State
}

// Table holds the records of one kind. It is safe for concurrent use.
type Table[T record] struct {
	dir string

	mu      sync.Mutex
	objects map[string]T        // by id, in every state
	names   map[string]*holding // by name
}

// holding is who has a name.
type holding struct {
	id string
	// done is closed when the creation ends, either way.
	done chan struct{}
}

// Open reads the records under dir, which it makes. A file that cannot be read
// as a record is set aside with the suffix .bad and named in the error; the
// table is usable even then.
func Open[T record](dir string) (*Table[T], error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("record directory: %w", err)
	}
	t := &Table[T]{dir: dir, objects: map[string]T{}, names: map[string]*holding{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read record directory: %w", err)
	}
	var bad []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".tmp-") {
			_ = os.Remove(path)
			continue
		}
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		if err := t.load(path); err != nil {
			bad = append(bad, fmt.Errorf("record %s: %w (kept as %s.bad)", e.Name(), err, e.Name()))
			_ = os.Rename(path, path+".bad")
		}
	}
	return t, errors.Join(bad...)
}

func (t *Table[T]) load(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var obj T
	if err := json.Unmarshal(b, &obj); err != nil {
		return err
	}
	if want := strings.TrimSuffix(filepath.Base(path), ".json"); obj.id() != want {
		return fmt.Errorf("holds id %q", obj.id())
	}
	t.objects[obj.id()] = obj
	if obj.state() == Creating {
		return nil // its name is free: whoever made it is dead
	}
	h := &holding{id: obj.id(), done: make(chan struct{})}
	close(h.done)
	t.names[obj.name()] = h
	return nil
}

// Reserve takes the name of obj for its creation and writes its record in state
// Creating. Three outcomes: owner true, the caller creates and ends with Commit,
// Delete or Abandon; owner false and no error, existing is the created object that has
// the name; an error. While another creation of the name is under way, Reserve
// waits for its end or ctx's.
func (t *Table[T]) Reserve(ctx context.Context, obj T) (existing T, owner bool, err error) {
	var none T
	for {
		t.mu.Lock()
		h, taken := t.names[obj.name()]
		if !taken {
			t.names[obj.name()] = &holding{id: obj.id(), done: make(chan struct{})}
			t.objects[obj.id()] = obj
			t.mu.Unlock()
			if err := t.write(obj); err != nil {
				_ = t.Delete(obj.id())
				return none, false, err
			}
			return none, true, nil
		}
		existing := t.objects[h.id]
		t.mu.Unlock()
		select {
		case <-h.done:
			if existing.state() != Creating {
				return existing, false, nil
			}
			// It ended between the look and the wait: look again.
		case <-ctx.Done():
			return none, false, fmt.Errorf("wait for the creation under way of the same name: %w", ctx.Err())
		}
	}
}

// Commit makes obj, which was reserved, visible in its new state.
func (t *Table[T]) Commit(obj T) error {
	if err := t.write(obj); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.objects[obj.id()] = obj
	if h := t.names[obj.name()]; h != nil {
		close(h.done)
	}
	return nil
}

// Update replaces a created object. The caller serialises updates of one object.
func (t *Table[T]) Update(obj T) error {
	t.mu.Lock()
	_, ok := t.objects[obj.id()]
	t.mu.Unlock()
	if !ok {
		return fmt.Errorf("update %s: %w", obj.id(), ErrNotFound)
	}
	if err := t.write(obj); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.objects[obj.id()] = obj
	return nil
}

// Delete forgets an object in any state and frees its name. It is idempotent.
func (t *Table[T]) Delete(id string) error {
	err := os.Remove(t.path(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete record: %w", err)
	}
	t.drop(id)
	return nil
}

// Abandon ends a creation whose effects could not be taken back: the name is
// free, and the record stays on disk for the next Open to find unfinished.
func (t *Table[T]) Abandon(id string) { t.drop(id) }

func (t *Table[T]) drop(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	obj, ok := t.objects[id]
	if !ok {
		return
	}
	delete(t.objects, id)
	if h := t.names[obj.name()]; h != nil && h.id == id {
		delete(t.names, obj.name())
		if obj.state() == Creating {
			close(h.done)
		}
	}
}

// Get finds a created object by its id or by a prefix of it that fits one only.
func (t *Table[T]) Get(id string) (T, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var none T
	if obj, ok := t.objects[id]; ok && obj.state() != Creating {
		return obj, nil
	}
	found, n := none, 0
	if len(id) >= minPrefix && len(id) < 64 {
		for k, obj := range t.objects {
			if obj.state() != Creating && strings.HasPrefix(k, id) {
				found, n = obj, n+1
			}
		}
	}
	switch n {
	case 1:
		return found, nil
	case 0:
		return none, fmt.Errorf("%q: %w", id, ErrNotFound)
	}
	return none, fmt.Errorf("%q fits %d ids: %w", id, n, ErrNotFound)
}

// List gives every created object.
func (t *Table[T]) List() []T {
	return t.list(func(s State) bool { return s != Creating })
}

// Unfinished gives the objects whose creation has not ended; at start, those
// that a dead daemon left half made.
func (t *Table[T]) Unfinished() []T {
	return t.list(func(s State) bool { return s == Creating })
}

func (t *Table[T]) list(want func(State) bool) []T {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := slices.Collect(maps.Values(t.objects))
	return slices.DeleteFunc(all, func(o T) bool { return !want(o.state()) })
}

func (t *Table[T]) path(id string) string { return filepath.Join(t.dir, filepath.Base(id)+".json") }

func (t *Table[T]) write(obj T) error {
	b, err := json.Marshal(obj)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", obj.id(), err)
	}
	f, err := os.CreateTemp(t.dir, ".tmp-")
	if err != nil {
		return fmt.Errorf("write record %s: %w", obj.id(), err)
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), t.path(obj.id()))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write record %s: %w", obj.id(), err)
	}
	return nil
}
