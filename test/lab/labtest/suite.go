package labtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"keelson.dev/keelson/image/imagetest"
	"keelson.dev/keelson/test/lab"
)

// What Main made for the package's tests.
var (
	shared   *lab.Cluster
	registry *lab.Registry
)

// Main runs a package's tests with a registry and one shared server, which it removes afterwards; call it from TestMain and exit
// with what it returns. Without root nothing is started and every test skips.
func Main(m *testing.M, o lab.Options) (code int) {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	ctx := context.Background()
	var err error
	if registry, err = lab.StartRegistry(); err != nil {
		fmt.Fprintln(os.Stderr, "start the registry:", err)
		return 1
	}
	defer registry.Close()
	if shared, err = Start(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "start the shared server:", err)
		return 1
	}
	defer func() {
		if code != 0 {
			fmt.Fprintf(os.Stderr, "the shared server's log ends so:\n%s\n", shared.Log())
		}
		if err := shared.Remove(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "remove the shared server:", err)
			code = 1
		}
	}()
	return m.Run()
}

// Start starts a server that pulls from the package's registry under the images' original names. The caller removes it.
func Start(ctx context.Context, o lab.Options) (*lab.Cluster, error) {
	c, err := lab.New(o)
	if err != nil {
		return nil, err
	}
	if err := registry.Mirror(c.CertsDir()); err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	if err := c.WaitReady(ctx); err != nil {
		return nil, fmt.Errorf("%w (removed: %v)", err, c.Remove(ctx))
	}
	return c, nil
}

// Program compiles a program of this module, a folder below the test's own, and serves it as an image. Its command is the program.
func Program(t *testing.T, folder, image string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", out, "./"+folder)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if os.Getenv("GOFLAGS") == "" { // with the run's own flags most of it is compiled already
		cmd.Env = append(cmd.Env, "GOFLAGS=-tags=netgo,osusergo -buildvcs=false")
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v\n%s", folder, err, text)
	}
	binary, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	img, err := imagetest.Program(filepath.Base(folder), 0o755, binary)
	if err != nil {
		t.Fatal(err)
	}
	if err := registry.Add(image, img); err != nil {
		t.Fatal(err)
	}
}

// Cluster returns the shared server, or skips.
func Cluster(t *testing.T) *lab.Cluster {
	t.Helper()
	NeedRoot(t)
	return shared
}

// Own returns a server of the test's own.
func Own(t *testing.T, o lab.Options) *lab.Cluster {
	t.Helper()
	NeedRoot(t)
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server's log ends so:\n%s", c.Log())
		}
		if err := c.Remove(context.Background()); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
	return c
}

// NeedRoot skips a test that an ordinary user cannot run.
func NeedRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a node makes namespaces, mounts and cgroups")
	}
}
