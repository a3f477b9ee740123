package imagetest

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
)

// Large makes layers for benchmarks: about size bytes in all, in files from a
// kilobyte to some megabytes that compress about three to one, as programs and
// text do. The same arguments give the same bytes.
func Large(layers int, size int64) []Layer {
	rnd := rand.New(rand.NewPCG(1, 2))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 3+rnd.IntN(9))
		for j := range words[i] {
			words[i][j] = byte(rnd.IntN(256))
		}
	}
	out := make([]Layer, layers)
	for i := range out {
		left := size / int64(layers)
		for n := 0; left > 0; n++ {
			want := int64(1<<10) << rnd.IntN(13)
			want = min(want+rnd.Int64N(want), left)
			b := make([]byte, 0, want+16)
			for int64(len(b)) < want {
				// The lower of two numbers: some words are more frequent than others.
				b = append(b, words[min(rnd.IntN(len(words)), rnd.IntN(len(words)))]...)
			}
			if n%100 == 0 {
				out[i] = append(out[i], Entry{Name: fmt.Sprintf("opt/layer%d/d%d/", i, n/100), Type: tar.TypeDir})
			}
			out[i] = append(out[i], Entry{Name: fmt.Sprintf("opt/layer%d/d%d/f%d", i, n/100, n), Data: b[:want]})
			left -= want
		}
	}
	return out
}
