package main

import (
	"reflect"
	"testing"
)

func TestOnlyUntouchedPagesOfTheProgramAreGivenBack(t *testing.T) {
	const smaps = `00400000-00500000 r-xp 00000000 fe:00 42                         /usr/bin/keelson
Rss:                 900 kB
Anonymous:             0 kB
00500000-00600000 r--p 00100000 fe:00 42                         /usr/bin/keelson
Anonymous:             4 kB
00600000-00700000 rw-p 00200000 fe:00 42                         /usr/bin/keelson
Anonymous:             0 kB
00700000-00800000 r--p 00300000 fe:00 42                         /usr/bin/keelson
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000100000 r--p 00000000 fe:00 43                 /usr/lib/locale
Anonymous:             0 kB
`
	want := []mapping{{0x400000, 0x500000}, {0x700000, 0x800000}}
	if got := cleanMappings([]byte(smaps), "/usr/bin/keelson"); !reflect.DeepEqual(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}
