package arch

import (
	"fmt"
	"go/ast"
	"strings"
	"testing"
)

// The hard limits; the aims are lower (60, 400). See the design, "size of things".
const (
	maxFunction  = 100 // lines
	maxFile      = 600 // lines
	maxFields    = 20  // of a struct
	maxMethods   = 5   // of an interface
	maxMutexes   = 1   // of a struct
	docRequired  = "doc.go"
	generatedTag = "Code generated"
)

func TestSizeBudget(t *testing.T) {
	files, err := sources()
	if err != nil {
		t.Fatalf("read the module's sources: %v", err)
	}
	for _, f := range files {
		if f.test || generated(f) {
			continue
		}
		for _, finding := range measure(f) {
			if _, listed := sizeExceptions[finding.key]; !listed {
				t.Errorf("%s (list it in exceptions.go only with a reason that holds)", finding.text)
			}
		}
	}
}

// TestEveryFolderHasDoc: each folder's doc.go says purpose, invariants, ownership; read in order they are the book.
func TestEveryFolderHasDoc(t *testing.T) {
	files, err := sources()
	if err != nil {
		t.Fatalf("read the module's sources: %v", err)
	}
	documented, seen := map[string]bool{}, map[string]bool{}
	for _, f := range files {
		if f.test {
			continue
		}
		seen[f.pkg] = true
		if f.ast.Doc != nil {
			documented[f.pkg] = true
		}
	}
	for pkg := range seen {
		if !documented[pkg] {
			t.Errorf("%s: no package comment (write it in %s)", pkg, docRequired)
		}
	}
}

type finding struct{ key, text string }

func measure(f file) []finding {
	var out []finding
	add := func(kind, name string, got, limit int) {
		if got > limit {
			key := strings.TrimSuffix(kind+" "+f.path+":"+name, ":")
			out = append(out, finding{key, fmt.Sprintf("%s: %d, limit %d", key, got, limit)})
		}
	}
	add("file", "", f.lines, maxFile)
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			add("function", n.Name.Name, f.fset.Position(n.End()).Line-f.fset.Position(n.Pos()).Line+1, maxFunction)
		case *ast.TypeSpec:
			switch typ := n.Type.(type) {
			case *ast.StructType:
				fields, mutexes := count(typ)
				add("struct", n.Name.Name, fields, maxFields)
				add("mutexes", n.Name.Name, mutexes, maxMutexes)
			case *ast.InterfaceType:
				add("interface", n.Name.Name, len(typ.Methods.List), maxMethods)
			}
		}
		return true
	})
	return out
}

func count(s *ast.StructType) (fields, mutexes int) {
	for _, field := range s.Fields.List {
		fields += max(1, len(field.Names))
		if sel, ok := field.Type.(*ast.SelectorExpr); ok && (sel.Sel.Name == "Mutex" || sel.Sel.Name == "RWMutex") {
			mutexes++
		}
	}
	return fields, mutexes
}

func generated(f file) bool {
	for _, group := range f.ast.Comments {
		if strings.Contains(group.Text(), generatedTag) {
			return true
		}
	}
	return false
}
