package main

import (
	"context"
	"log/slog"
	"reflect"
	"runtime"
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

func TestTheMemoryOfABurstIsGivenBack(t *testing.T) {
	giveBack(slog.New(slog.DiscardHandler))
	least := held()
	burst := make([][]byte, 64)
	for i := range burst {
		burst[i] = make([]byte, 1<<20)
	}
	if got := held(); got < least+48<<20 {
		t.Fatalf("%d bytes are held with a burst of 64 MiB, %d were before it", got, least)
	}
	runtime.KeepAlive(burst)
	giveBack(slog.New(slog.DiscardHandler))
	if got := held(); got > least+16<<20 {
		t.Errorf("%d bytes are held after the burst, %d were before it", got, least)
	}
}

func TestCollectionsAreTold(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := make(chan struct{}, 1)
	collections(ctx, c)
	for range 3 { // each arms the next
		runtime.GC()
		<-c
	}
}
