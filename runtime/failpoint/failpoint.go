package failpoint

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// Variable is the environment variable that switches points on.
const Variable = "KEELSON_FAILPOINT"

// ErrInjected is what Err returns where the action is "error".
var ErrInjected = errors.New("injected failure")

// Point is one place. Make it once, as a package variable.
type Point struct{ name string }

// on says whether anything is switched on in this process.
var on atomic.Bool

// state is what is switched on.
var state struct {
	mu     sync.Mutex
	names  map[string]bool
	file   string // "@" mode
	spec   string // as it was read last
	orders map[string]order
	hits   map[string]int
}

type order struct {
	action string
	nth    int
}

func init() { configure(os.Getenv(Variable)) }

// configure takes what the environment says.
func configure(value string) {
	state.mu.Lock()
	defer state.mu.Unlock()
	state.file, state.spec, state.orders, state.hits = "", "", nil, map[string]int{}
	if path, ok := strings.CutPrefix(value, "@"); ok {
		state.file = path
	} else {
		state.orders = parse(value)
	}
	on.Store(value != "")
}

// New names a place. A name is given once; twice is a mistake of the program.
func New(name string) *Point {
	state.mu.Lock()
	defer state.mu.Unlock()
	if state.names == nil {
		state.names = map[string]bool{}
	}
	if state.names[name] {
		panic("failpoint " + name + " is named twice")
	}
	state.names[name] = true
	return &Point{name: name}
}

// Names lists every point of the packages in this program.
func Names() []string {
	state.mu.Lock()
	defer state.mu.Unlock()
	return slices.Sorted(maps.Keys(state.names))
}

// Environ is what a child process with points of its own is to be given.
func Environ() []string {
	if value := os.Getenv(Variable); value != "" {
		return []string{Variable + "=" + value}
	}
	return nil
}

// Reach says that the program is at p.
func (p *Point) Reach() {
	if on.Load() {
		_ = p.reach()
	}
}

// Err says that the program is at p, where what is being done can fail.
func (p *Point) Err() error {
	if !on.Load() {
		return nil
	}
	return p.reach()
}

func (p *Point) reach() error {
	switch p.action() {
	case "exit":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	case "stop":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case "error":
		return fmt.Errorf("%s: %w", p.name, ErrInjected)
	}
	return nil
}

// action counts the visit and says what is to be done, "" for nothing.
func (p *Point) action() string {
	state.mu.Lock()
	defer state.mu.Unlock()
	if state.file != "" {
		reread(p.name)
	}
	do, ok := state.orders[p.name]
	if !ok {
		return ""
	}
	if state.hits[p.name]++; state.hits[p.name] != do.nth {
		return ""
	}
	if state.file != "" {
		// Once: the program that is started next finds no order. In one call: somebody else may kill this program right here, and the
		// order would be gone without a word of who had it.
		_ = os.Rename(state.file, fmt.Sprint(state.file, ".hit.", os.Getpid()))
	}
	return do.action
}

// reread brings the orders up to date with the file. A missing one orders
// nothing.
func reread(name string) {
	text, err := os.ReadFile(state.file)
	if err != nil {
		text = nil
	}
	if string(text) != state.spec {
		state.spec, state.orders, state.hits = string(text), parse(string(text)), map[string]int{}
	}
	if f, err := os.OpenFile(state.file+".trace", os.O_WRONLY|os.O_APPEND, 0); err == nil {
		_, _ = f.WriteString(name + "\n")
		f.Close()
	}
}

// parse reads "name=action[:nth]", several separated by white space or commas.
// What it does not understand it leaves out.
func parse(text string) map[string]order {
	out := map[string]order{}
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
		name, action, ok := strings.Cut(word, "=")
		if !ok {
			continue
		}
		o := order{nth: 1}
		var count string
		o.action, count, ok = strings.Cut(action, ":")
		if n, err := strconv.Atoi(count); ok && err == nil && n > 0 {
			o.nth = n
		}
		out[name] = o
	}
	return out
}
