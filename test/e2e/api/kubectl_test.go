package api

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

// TestKubectl runs each script of testdata/kubectl in a namespace and a folder of its own. A script is a txtar archive:
// its files, and before them one step a line:
//
//	kubectl ARGS      must succeed            ! kubectl ARGS   must fail
//	? kubectl ARGS    is repeated until it succeeds and the stdout and stderr lines after it hold
//	stdout TEXT       the last kubectl's output has TEXT; !stdout TEXT: has not; stderr likewise
//	env NAME=VALUE    for the kubectls after it
//
// 'Single quotes' keep an argument together; $NS is the namespace.
func TestKubectl(t *testing.T) {
	c := labtest.Cluster(t)
	files, err := filepath.Glob("testdata/kubectl/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := &script{t: t, c: c, ns: "script-" + name, dir: t.TempDir()}
			for _, f := range a.Files {
				if err := os.WriteFile(filepath.Join(s.dir, f.Name), bytes.ReplaceAll(f.Data, []byte("$NS"), []byte(s.ns)), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			labtest.Kubectl(t, c, "create", "namespace", s.ns)
			t.Cleanup(func() { _, _, _ = c.Kubectl(context.Background(), "delete", "namespace", s.ns, "--wait=false") })
			s.run(string(a.Comment))
		})
	}
}

type script struct {
	t           *testing.T
	c           *lab.Cluster
	ns, dir     string
	env         []string
	out, errors string
}

func (s *script) run(text string) {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(strings.ReplaceAll(lines[i], "$NS", s.ns))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		at := fmt.Sprintf("line %d: %s", i+1, line)
		if command, ok := strings.CutPrefix(line, "? kubectl "); ok {
			n := i + 1
			for n < len(lines) && isCheck(lines[n]) {
				n++
			}
			s.repeat(at, command, lines[i+1:n])
			i = n - 1
			continue
		}
		if complaint := s.step(line); complaint != "" {
			s.t.Fatalf("%s\n%s\nstdout: %s\nstderr: %s", at, complaint, s.out, s.errors)
		}
	}
}

func isCheck(line string) bool {
	word, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "!"), " ")
	return word == "stdout" || word == "stderr"
}

// repeat waits until a command succeeds with what is wanted of it.
func (s *script) repeat(at, command string, checks []string) {
	deadline := time.Now().Add(labtest.Patience)
	for {
		complaint := s.step("kubectl " + command)
		for _, c := range checks {
			if complaint == "" {
				complaint = s.step(strings.TrimSpace(strings.ReplaceAll(c, "$NS", s.ns)))
			}
		}
		if complaint == "" {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s\n%s\nstdout: %s\nstderr: %s", at, complaint, s.out, s.errors)
		}
		time.Sleep(100 * time.Millisecond) // between looks
	}
}

// step runs one step and returns what is wrong with it.
func (s *script) step(line string) (complaint string) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "kubectl":
		if err := s.kubectl(rest); err != nil {
			return err.Error()
		}
	case "!":
		if err := s.kubectl(strings.TrimPrefix(rest, "kubectl ")); err == nil {
			return "succeeded, but must fail"
		}
	case "env":
		s.env = append(s.env, rest)
	case "stdout", "stderr", "!stdout", "!stderr":
		text := s.out
		if strings.HasSuffix(word, "stderr") {
			text = s.errors
		}
		if has, want := strings.Contains(text, rest), word[0] != '!'; has != want {
			return fmt.Sprintf("%q is there: %v, want %v", rest, has, want)
		}
	default:
		return "not a step"
	}
	return ""
}

func (s *script) kubectl(line string) error {
	cmd := s.c.KubectlCommand(s.t.Context(), append([]string{"--namespace", s.ns}, words(line)...)...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, append(cmd.Env, s.env...), &out, &errs
	err := cmd.Run()
	s.out, s.errors = out.String(), errs.String()
	return err
}

// words splits a line at spaces outside single quotes.
func words(line string) []string {
	var out []string
	quoted, word, any := false, "", false
	for _, r := range line {
		switch {
		case r == '\'':
			quoted, any = !quoted, true
		case r == ' ' && !quoted:
			if any {
				out = append(out, word)
			}
			word, any = "", false
		default:
			word, any = word+string(r), true
		}
	}
	if any {
		out = append(out, word)
	}
	return out
}

// A user's own preferences count: aliases that put words before those that are typed, and defaults of flags.
func TestKubectlPreferences(t *testing.T) {
	c := labtest.Cluster(t)
	file := filepath.Join(t.TempDir(), "kuberc.yaml")
	if err := os.WriteFile(file, []byte(`apiVersion: kubectl.config.k8s.io/v1beta1
kind: Preference
aliases:
- name: space
  command: get
  prependArgs: [namespace]
  options: [{name: output, default: name}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := labtest.Kubectl(t, c, "space", "default", "--kuberc="+file); got != "namespace/default\n" {
		t.Errorf("the alias says %q", got)
	}
	if got := labtest.Kubectl(t, c, "--kuberc="+file, "space", "default", "-o", "jsonpath={.kind}"); got != "Namespace" {
		t.Errorf("with a flag that is typed it says %q", got)
	}
	if got := labtest.Refused(t, c, "", "space", "default"); !strings.Contains(got, `unknown command "space"`) {
		t.Errorf("without preferences: %q", got)
	}
}
