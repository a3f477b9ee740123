package inflate

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	kgzip "github.com/klauspost/compress/gzip"
)

// samples are inputs that exercise all kinds of blocks and matches.
func samples() map[string][]byte {
	rnd := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, 700_000)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	var words strings.Builder
	for words.Len() < 1_000_000 {
		fmt.Fprintf(&words, "%s%d ", []string{"alpha", "beta", "gamma", "delta"}[rnd.IntN(4)], rnd.IntN(50))
	}
	skew := make([]byte, 500_000) // few values often, many seldom: long codes
	for i := range skew {
		skew[i] = byte(min(rnd.IntN(256), rnd.IntN(256), rnd.IntN(256), rnd.IntN(256), rnd.IntN(256)))
	}
	var short bytes.Buffer // matches at all short distances
	for d := 1; d < 40; d++ {
		for range 50 {
			short.Write(bytes.Repeat(noise[d*50:d*50+d], 1+rnd.IntN(300)))
		}
	}
	return map[string][]byte{"empty": nil, "one": {7}, "zeros": make([]byte, 3_000_000), "noise": noise, "words": []byte(words.String()),
		"skew": skew, "short": short.Bytes(), "far": append(append(bytes.Clone(noise[:32768]), noise[:32768]...), noise[:40000]...)}
}

func pack(t testing.TB, level int, parts ...[]byte) []byte {
	var b bytes.Buffer
	for _, p := range parts {
		w, err := gzip.NewWriterLevel(&b, level)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(p)
		w.Close()
	}
	return b.Bytes()
}

func TestReader(t *testing.T) {
	for name, data := range samples() {
		for level := gzip.HuffmanOnly; level <= gzip.BestCompression; level++ {
			z := pack(t, level, data)
			for how, src := range map[string]io.Reader{"whole": bytes.NewReader(z), "halves": iotest.HalfReader(bytes.NewReader(z)), "error with data": iotest.DataErrReader(bytes.NewReader(z))} {
				got, err := io.ReadAll(NewReader(src))
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%s, level %d, %s: %d of %d bytes, %v", name, level, how, len(got), len(data), err)
				}
			}
		}
		got, err := io.ReadAll(iotest.OneByteReader(NewReader(iotest.OneByteReader(bytes.NewReader(pack(t, 6, data[:min(len(data), 100_000)]))))))
		if err != nil || !bytes.Equal(got, data[:min(len(data), 100_000)]) {
			t.Errorf("%s, byte by byte: %d bytes, %v", name, len(got), err)
		}
	}
}

// Matches and literals in every position around the end of the buffer.
func TestBufferEnds(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var data []byte
		for len(data) < 3*outSize {
			n, kind := 1+rnd.IntN(300), rnd.IntN(4)
			if seed%2 == 0 {
				kind = 3
			}
			switch kind {
			case 3: // two literals and a short match, with one load of bits
				data = append(data, byte(rnd.Uint32()), byte(rnd.Uint32()))
				if from := len(data) - 1 - rnd.IntN(window); from >= 0 {
					data = append(data, data[from:min(from+4+n%5, len(data))]...)
				}
			case 0: // literals
				for range n % 7 {
					data = append(data, byte(rnd.IntN(4+int(seed)*4)))
				}
			case 1: // a match from anywhere in the window
				if from := len(data) - 1 - rnd.IntN(window); from >= 0 {
					data = append(data, data[from:min(from+n, len(data))]...)
				}
			default: // a run
				for range n {
					data = append(data, data[max(0, len(data)-1-int(seed)%9):max(0, len(data)-int(seed)%9)]...)
				}
			}
		}
		got, err := io.ReadAll(NewReader(bytes.NewReader(pack(t, 1+int(seed)%9, data))))
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("seed %d: %d of %d bytes, %v", seed, len(got), len(data), err)
		}
	}
}

func TestMembersAndPadding(t *testing.T) {
	a, b := []byte("first"), bytes.Repeat([]byte("second"), 100_000)
	z := pack(t, 6, a, nil, b)
	for _, pad := range []int{0, 1, 511} {
		got, err := io.ReadAll(NewReader(bytes.NewReader(append(bytes.Clone(z), make([]byte, pad)...))))
		if err != nil || !bytes.Equal(got, append(bytes.Clone(a), b...)) {
			t.Errorf("padding %d: %d bytes, %v", pad, len(got), err)
		}
	}
	var h bytes.Buffer
	w := gzip.NewWriter(&h)
	w.Name, w.Comment, w.Extra = "name", "comment", []byte("extra")
	w.Write(a)
	w.Close()
	if got, err := io.ReadAll(NewReader(&h)); err != nil || !bytes.Equal(got, a) {
		t.Errorf("header fields: %q, %v", got, err)
	}
	if _, err := io.ReadAll(NewReader(bytes.NewReader(append(bytes.Clone(z), 'x')))); !errors.Is(err, ErrCorrupt) {
		t.Errorf("garbage behind: %v", err)
	}
	// History does not reach over from the member before.
	evil := pack(t, 6, bytes.Repeat([]byte("secret"), 10))
	second := pack(t, 6, []byte("xxxxxxxxxxxxxxxxxxxxxxxxxxxx"))
	second[10] = 0x03 // end of a fixed block at once: no longer matches its sum
	if _, err := io.ReadAll(NewReader(bytes.NewReader(append(evil, second...)))); err == nil {
		t.Error("a member with a bad sum: no error")
	}
}

func TestBadInput(t *testing.T) {
	z := pack(t, 6, samples()["words"][:50_000])
	for n := range len(z) {
		if n > 300 && n < len(z)-300 && n%97 != 0 {
			continue
		}
		if _, err := io.ReadAll(NewReader(bytes.NewReader(z[:n]))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d of %d: %v, want ErrUnexpectedEOF", n, len(z), err)
		}
	}
	boom := errors.New("boom")
	if _, err := io.ReadAll(NewReader(io.MultiReader(bytes.NewReader(z[:len(z)/2]), iotest.ErrReader(boom)))); !errors.Is(err, boom) {
		t.Errorf("source error: %v", err)
	}
	for i := range z {
		bad := bytes.Clone(z)
		bad[i] ^= 1 << (i % 8)
		agree(t, bad)
	}
}

// agree decodes with both and fails when ours accepts what compress/gzip does
// not, or gives other bytes, or refuses what that accepts.
func agree(t *testing.T, z []byte) {
	t.Helper()
	got, err := io.ReadAll(io.LimitReader(NewReader(bytes.NewReader(z)), 4<<20))
	var want []byte
	r, werr := gzip.NewReader(bytes.NewReader(z))
	if werr == nil {
		want, werr = io.ReadAll(io.LimitReader(r, 4<<20))
	}
	if errors.Is(err, errReserved) { // compress/gzip passes over them
		if werr == nil && !bytes.HasPrefix(want, got) {
			t.Fatalf("the bytes before the error differ; input %x", z)
		}
		return
	}
	if (err == nil) != (werr == nil) {
		// Padding is what we allow and compress/gzip does not.
		if err == nil && z[len(z)-1] == 0 && (errors.Is(werr, gzip.ErrHeader) || werr == io.ErrUnexpectedEOF) && bytes.Equal(got, want) {
			return
		}
		t.Fatalf("ours %v, compress/gzip %v, input %x", err, werr, z)
	}
	if err == nil && !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, want %d; input %x", len(got), len(want), z)
	}
	if n := min(len(got), len(want)); !bytes.Equal(got[:n], want[:n]) {
		t.Fatalf("the bytes before the error differ; input %x", z)
	}
}

func FuzzReader(f *testing.F) {
	for _, data := range samples() {
		for _, level := range []int{gzip.HuffmanOnly, 0, 1, 9} {
			f.Add(pack(f, level, data[:min(len(data), 2000)]))
		}
	}
	f.Fuzz(func(t *testing.T, z []byte) { agree(t, z) })
}

// FuzzDeflate puts any bytes where the blocks are, so that the fuzzer need not
// find a valid header first.
func FuzzDeflate(f *testing.F) {
	for _, data := range samples() {
		for _, level := range []int{gzip.HuffmanOnly, 0, 1, 9} {
			z := pack(f, level, data[:min(len(data), 2000)])
			f.Add(z[10 : len(z)-8])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		agree(t, append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0}, b...))
	})
}

func BenchmarkInflate(b *testing.B) {
	for name, data := range samples() {
		if len(data) < 100_000 {
			continue
		}
		data = bytes.Repeat(data, 1+(8<<20)/len(data))
		z := pack(b, 6, data)
		for who, open := range map[string]func(io.Reader) io.Reader{
			"ours":      func(r io.Reader) io.Reader { return NewReader(r) },
			"klauspost": func(r io.Reader) io.Reader { k, _ := kgzip.NewReader(r); return k },
			"std":       func(r io.Reader) io.Reader { k, _ := gzip.NewReader(r); return k },
		} {
			b.Run(name+"/"+who, func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				buf := make([]byte, 256<<10)
				for b.Loop() {
					if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{open(bytes.NewReader(z))}, buf); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
