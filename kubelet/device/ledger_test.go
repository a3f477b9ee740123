package device

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func book(units map[string]unit, gifts map[key]gift) *ledger {
	l := newLedger()
	l.units["x/y"], l.gifts = units, gifts
	return &l
}

func TestPick(t *testing.T) {
	well, bad := unit{healthy: true}, unit{}
	near := func(n ...int64) unit { return unit{healthy: true, numa: n} }
	taken := map[key]gift{{"other", "c", "x/y"}: {IDs: []string{"b"}}}
	for _, c := range []struct {
		name             string
		units            map[string]unit
		gifts            map[key]gift
		want             int
		reuse, preferred []string
		get              string // "" for a shortage
	}{
		{"the first free ones", map[string]unit{"a": well, "b": well, "c": well, "d": well}, taken, 2, nil, nil, "a c"},
		{"not the unhealthy", map[string]unit{"a": bad, "b": well, "c": well, "d": well}, taken, 2, nil, nil, "c d"},
		{"too few", map[string]unit{"a": bad, "b": well, "c": well}, taken, 2, nil, nil, ""},
		{"none known", nil, nil, 1, nil, nil, ""},
		{"the pod's own again", map[string]unit{"b": well, "c": well}, taken, 2, []string{"b"}, nil, "b c"},
		{"fewer than the pod's own", map[string]unit{"b": well, "c": well}, taken, 1, []string{"b", "c"}, nil, "b"},
		{"what the plugin prefers", map[string]unit{"a": well, "c": well, "d": well}, nil, 2, nil, []string{"d", "c"}, "c d"},
		{"no preference for what is taken or unknown", map[string]unit{"a": well, "b": well, "d": well}, taken, 2, nil, []string{"b", "zz", "d", "d"}, "a d"},
		{"one memory node that has enough", map[string]unit{"a": near(0), "b": near(1), "c": near(0), "d": near(1)}, taken, 2, nil, nil, "a c"},
		{"the node with fewest to spare", map[string]unit{"a": near(0), "c": near(0), "d": near(0), "e": near(1), "f": near(1)}, nil, 2, nil, nil, "e f"},
	} {
		got, err := book(c.units, c.gifts).pick("x/y", c.want, c.reuse, c.preferred)
		var short *shortage
		if c.get == "" && !errors.As(err, &short) || c.get != "" && strings.Join(got, " ") != c.get {
			t.Errorf("%s: %v, %v; want %q", c.name, got, err, c.get)
		}
	}
}

func TestCheckpoint(t *testing.T) {
	path := t.TempDir() + "/given.json"
	b, err := load(path)
	if err != nil || len(b.Gifts) != 0 {
		t.Fatalf("no file: %+v, %v", b, err)
	}
	want := body{Gifts: []entry{{key{"u", "c", "x/y"}, gift{[]string{"a", "b"}, []byte{0, 1, 255}}}}, Resources: []string{"x/y"}}
	if err := save(path, want); err != nil {
		t.Fatal(err)
	}
	b, err = load(path)
	if err != nil || len(b.Gifts) != 1 || b.Gifts[0].key != want.Gifts[0].key || !slices.Equal(b.Gifts[0].IDs, want.Gifts[0].IDs) ||
		string(b.Gifts[0].Answer) != "\x00\x01\xff" || !slices.Equal(b.Resources, want.Resources) {
		t.Errorf("read back %+v, %v", b, err)
	}
}

func FuzzCheckpoint(f *testing.F) {
	f.Add([]byte(`{"Body":{"Gifts":[{"Pod":"u"}]},"Sum":1}`))
	f.Add([]byte(`{"Body":{},"Sum":2745614147}`))
	f.Fuzz(func(_ *testing.T, raw []byte) { _, _ = parse(raw) })
}
