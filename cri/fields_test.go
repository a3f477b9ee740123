package cri

import (
	"bytes"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	apiPath = "k8s.io/cri-api/pkg/apis/runtime/v1"
	product = "keelson.dev/keelson/cri"
)

// unread are the fields of requests that nothing here looks at, and why. A field
// alone, or a message for all that only it leads to.
var unread = map[string]string{
	"CheckpointContainerRequest": "Unimplemented, which the answer says",
	"CheckpointPodRequest":       "Unimplemented, which the answer says",
	"RestorePodRequest":          "Unimplemented, which the answer says",

	"ContainerConfig.windows":                 "another system's",
	"PodSandboxConfig.windows":                "another system's",
	"UpdateContainerResourcesRequest.windows": "another system's",

	"CreateContainerRequest.sandbox_config": "what RunPodSandbox was given, passed again for easy reference; it is immutable",
	"PullImageRequest.sandbox_config":       "an image is pulled for all pods; no pod's settings have a say in it",
	"VersionRequest.version":                "there is one version",
	// Free text without a meaning of its own, and what options there are have fields.
	"UpdateContainerResourcesRequest.annotations": "experimental resources and other options, of which there are none",

	// The sandbox's own process, where there is one, has an empty root that is read-only, no user's rights, no capability and
	// nothing to open: nothing that it could be given would confine it more. Containers have fields of their own for these.
	"LinuxSandboxSecurityContext.readonly_rootfs":            "it always is",
	"LinuxSandboxSecurityContext.supplemental_groups":        "it opens nothing",
	"LinuxSandboxSecurityContext.supplemental_groups_policy": "it opens nothing",
	"LinuxSandboxSecurityContext.seccomp":                    "it calls nothing but pause",
	"LinuxSandboxSecurityContext.seccomp_profile_path":       "deprecated; it calls nothing but pause",
	"LinuxSandboxSecurityContext.apparmor":                   "it opens nothing",
}

// unwritten are the fields of responses that are never filled, and why.
var unwritten = map[string]string{
	"RestorePodResponse":         "Unimplemented",
	"PodSandboxStats.windows":    "another system's",
	"ContainerResources.windows": "another system's",
	"Metric.timestamp":           "0 says that the metric was gathered live",
	// A pod has the node's network or a user namespace, not both, and is refused where it asks for both.
	"RuntimeFeatures.user_namespaces_host_network": "not supported, which false says",
	// These come back as the client gave them.
	"PodSandboxMetadata": "the request's",
	"ContainerMetadata":  "the request's",
	"NamespaceOption":    "the request's",
	"Mount":              "the request's",
}

// TestEveryField finds for each field of each message of the API the place in
// the source where it is read or filled: one that is ignored in silence, as those
// of a later version of the API would be, is a defect.
func TestEveryField(t *testing.T) {
	used := fieldsUsed(t)
	methods := []protoreflect.MethodDescriptor{}
	services := runtimeapi.File_staging_src_k8s_io_cri_api_pkg_apis_runtime_v1_api_proto.Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			methods = append(methods, services.Get(i).Methods().Get(j))
		}
	}
	request, response := seeker{used.read, unread, map[string]bool{}}, seeker{used.written, unwritten, map[string]bool{}}
	for _, m := range methods {
		request.seek(t, m.Input())
		response.seek(t, m.Output())
	}
	for _, s := range []seeker{request, response} {
		for name := range s.excused {
			if !s.met[name] || s.used[name] {
				t.Errorf("%s is listed, but is used or is no more in the API", name)
			}
		}
	}
}

// seeker goes through the fields below messages.
type seeker struct {
	used    map[string]bool
	excused map[string]string
	met     map[string]bool
}

func (s seeker) seek(t *testing.T, m protoreflect.MessageDescriptor) {
	if s.met[string(m.Name())] {
		return
	}
	s.met[string(m.Name())] = true
	if s.excused[string(m.Name())] != "" {
		return
	}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		name := string(m.Name()) + "." + string(f.Name())
		s.met[name] = true
		switch {
		case s.excused[name] != "":
			continue
		case !s.used[name]:
			t.Errorf("%s is neither used nor listed with a reason", name)
		}
		if f.Message() != nil && !f.IsMap() {
			s.seek(t, f.Message())
		}
	}
}

// usage is what the source does with the API's fields, "Message.field_name".
type usage struct{ read, written map[string]bool }

func fieldsUsed(t *testing.T) usage {
	t.Helper()
	out, err := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}\t{{.Dir}}", "./...").Output()
	if err != nil {
		t.Fatalf("list the packages: %v", err)
	}
	exports, dirs := map[string]string{}, map[string]string{}
	for line := range strings.Lines(string(bytes.TrimSpace(out))) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		exports[f[0]] = f[1]
		if f[0] == product || strings.HasPrefix(f[0], product+"/") {
			dirs[f[0]] = f[2]
		}
	}
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	used := usage{map[string]bool{}, map[string]bool{}}
	for path, dir := range dirs {
		var files []*ast.File
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
		if _, err := (&types.Config{Importer: imports}).Check(path, fset, files, info); err != nil {
			t.Fatalf("check %s: %v", path, err)
		}
		for _, f := range files {
			used.collect(f, info)
		}
	}
	return used
}

func (u usage) collect(f *ast.File, info *types.Info) {
	names := fieldNames()
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			for _, e := range n.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok {
					if key, ok := kv.Key.(*ast.Ident); ok {
						u.written[names[message(info.Types[n].Type)+"."+key.Name]] = true
					}
				}
			}
		case *ast.AssignStmt:
			for _, left := range n.Lhs {
				if sel, ok := left.(*ast.SelectorExpr); ok {
					u.written[names[message(info.Types[sel.X].Type)+"."+sel.Sel.Name]] = true
				}
			}
		case *ast.SelectorExpr:
			u.read[names[message(info.Types[n.X].Type)+"."+strings.TrimPrefix(n.Sel.Name, "Get")]] = true
		}
		return true
	})
}

// message names the API's message that t is or points to, "" if none.
func message(t types.Type) string {
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	if n, ok := t.(*types.Named); ok && n.Obj().Pkg() != nil && n.Obj().Pkg().Path() == apiPath {
		return n.Obj().Name()
	}
	return ""
}

// fieldNames leads from the names in Go to those in the API.
func fieldNames() map[string]string {
	out := map[string]string{}
	messages := runtimeapi.File_staging_src_k8s_io_cri_api_pkg_apis_runtime_v1_api_proto.Messages()
	for i := range messages.Len() {
		m := messages.Get(i)
		for j := range m.Fields().Len() {
			proto, name := string(m.Fields().Get(j).Name()), ""
			for word := range strings.SplitSeq(proto, "_") {
				name += strings.ToUpper(word[:1]) + word[1:]
			}
			out[string(m.Name())+"."+name] = string(m.Name()) + "." + proto
		}
	}
	return out
}
