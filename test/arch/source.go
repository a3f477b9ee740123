package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const module = "keelson.dev/keelson"

// file is one parsed Go source file.
type file struct {
	path    string // relative to the module's root, slashes
	pkg     string // import path below the module, "" for the root
	test    bool
	lines   int
	imports []string
	ast     *ast.File
	fset    *token.FileSet
}

// root returns the module's root, found upwards from this package.
func root() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir, nil
		}
	}
	return "", fs.ErrNotExist
}

// sources parses every Go file of the module that is written by hand.
func sources() ([]file, error) {
	top, err := root()
	if err != nil {
		return nil, err
	}
	var files []file
	err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != top && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "zz") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasPrefix(name, "zz_generated") {
			return nil
		}
		f, err := parse(top, path)
		if err == nil {
			files = append(files, f)
		}
		return err
	})
	return files, err
}

func parse(top, path string) (file, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return file{}, err
	}
	rel, err := filepath.Rel(top, path)
	if err != nil {
		return file{}, err
	}
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, path, src, parser.SkipObjectResolution|parser.ParseComments)
	if err != nil {
		return file{}, err
	}
	f := file{path: filepath.ToSlash(rel), test: strings.HasSuffix(path, "_test.go"),
		lines: strings.Count(string(src), "\n"), ast: parsed, fset: fset}
	if dir := filepath.ToSlash(filepath.Dir(rel)); dir != "." {
		f.pkg = dir
	}
	for _, spec := range parsed.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return file{}, err
		}
		f.imports = append(f.imports, p)
	}
	return f, nil
}
