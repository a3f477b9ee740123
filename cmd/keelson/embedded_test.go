package main

import (
	"bytes"
	"debug/elf"
	"io/fs"
	"testing"
)

// What `make build` packed comes out whole; a name that is not in the file is told.
func TestEmbeddedPrograms(t *testing.T) {
	if _, err := fs.Stat(files, "embedded/programs.tar.zst"); err != nil {
		t.Skip("the programs are not packed here: `make build` does it")
	}
	for _, name := range []string{keeperFile, helloFile} {
		program, err := embedded(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := elf.NewFile(bytes.NewReader(program)); err != nil {
			t.Errorf("%s of %d bytes is no program: %v", name, len(program), err)
		}
	}
	if _, err := embedded("nobody"); err == nil {
		t.Error("a program that was never packed was found")
	}
}
