package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// configured is what a server with a configuration file, an environment and flags would run with.
func configured(t *testing.T, file string, environ []string, args ...string) (options, error) {
	t.Helper()
	var o options
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, settingsFile), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	return o, configure(t, &o, dir, environ, args...)
}

func configure(t *testing.T, o *options, dir string, environ []string, args ...string) error {
	t.Helper()
	cmd := &cobra.Command{}
	o.serverFlags(cmd)
	o.paths(cmd.Flags())
	if err := cmd.Flags().Parse(append([]string{"--config-dir", dir}, args...)); err != nil {
		t.Fatal(err)
	}
	return o.configure(cmd.Flags(), environ)
}

// ND21: a flag wins over the environment, that over the file, that over the default; each that loses is told of once.
func TestHostile_ND21_precedence(t *testing.T) {
	var o options
	dir := t.TempDir()
	for name, text := range map[string]string{
		"config.yaml": "# a node of ours\nmax-pods: 11\nbridge: file0\ndata-dir: /file\ntaint-control-plane: true\nignore-selinux-options: true\nshutdown-grace-period: 90s\nsnapshot-interval: 0\ntls-san: [a.example, \"b,c\"]\n" +
			"load-balancer-range: 192.0.2.1,192.0.2.2\nnode-name: '007'\ncluster-domain: same\n",
		"config.yaml.d/20-later.yaml": "snapshot-keep: 8\n",
		"config.yaml.d/10-first.yaml": "snapshot-keep: 7\nhealthz-port: 0\n",
		"config.yaml.d/90-other.txt":  "no: setting\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"KEELSON_DATA_DIR=/env", "KEELSON_BRIDGE=env0", "KEELSON_CLUSTER_DOMAIN=same", "KEELSON_CDI_DIR=/a,/b", "KEELSON_MAX_POD=3", "KEELSON_FAILPOINT=x", "PATH=/bin", "keelson_bridge=no"}
	if err := configure(t, &o, dir, env, "--bridge", "flag0"); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ what, got, want any }{
		{"a flag", o.node.Bridge, "flag0"}, {"a variable", o.place.Data, "/env"}, {"a number", o.node.MaxPods, 11}, {"true", o.plane.Taint, true}, {"a setting of the runtime", o.node.Runtime.IgnoreSELinux, true},
		{"a time", o.node.Shutdown.String(), "1m30s"}, {"a time of 0", o.plane.SnapshotEvery.String(), "0s"}, {"the last file", o.plane.SnapshotKeep, 8},
		{"zero", o.node.HealthzPort, 0}, {"the default", o.node.PodCIDR, "10.244.0.0/24"}, {"a quoted number", o.node.Name, "007"},
	} {
		if row.got != row.want {
			t.Errorf("%s: %v, want %v", row.what, row.got, row.want)
		}
	}
	for _, row := range []struct{ got, want []string }{
		{o.plane.TLSSANs, []string{"a.example", "b,c"}}, {o.plane.Balancer, []string{"192.0.2.1", "192.0.2.2"}}, {o.node.Runtime.CDIDirs, []string{"/a", "/b"}},
		{o.told.conflicts, []string{`--bridge=flag0 wins over "env0" of KEELSON_BRIDGE`, `KEELSON_BRIDGE=env0 wins over "file0" of ` + dir + `/config.yaml:3`,
			`KEELSON_DATA_DIR=/env wins over "/file" of ` + dir + `/config.yaml:4`}},
		{o.told.near, []string{"KEELSON_MAX_POD: is KEELSON_MAX_PODS meant?"}},
	} {
		if !slices.Equal(row.got, row.want) {
			t.Errorf("got %q\nwant %q", row.got, row.want)
		}
	}
}

// ND21: a file that is damaged, mistyped or not only root's is refused with its line, and what was meant.
func TestHostile_ND21_refused(t *testing.T) {
	for file, want := range map[string]string{
		"max-pods: 11\nmax-pod: 3\n":             `config.yaml:2: unknown key "max-pod"; the nearest that there is: max-pods`,
		"--data-dir: /x":                         `config.yaml:1: unknown key "--data-dir"; the nearest that there is: data-dir`,
		"bridge: a\n\nbridge: b\n":               "config.yaml:3: bridge is in line 1 already",
		"max-pods: eleven":                       "config.yaml:1: max-pods: a whole number is wanted",
		"max-pods: '11'":                         "config.yaml:1: max-pods: a whole number is wanted",
		"max-pods: 11.5":                         "config.yaml:1: max-pods: a whole number is wanted",
		"max-pods: 99999999999999999999":         "config.yaml:1: max-pods: ",
		"node-name: 12":                          "config.yaml:1: node-name: a string (in quotes, if it looks like something else) is wanted",
		"bridge:":                                "config.yaml:1: bridge: a string",
		"bridge: [a]":                            "config.yaml:1: bridge: a string",
		"taint-control-plane: 'yes'":             "config.yaml:1: taint-control-plane: true or false is wanted",
		"snapshot-interval: 5":                   "config.yaml:1: snapshot-interval: a time such as 1m30s is wanted",
		"snapshot-interval: soon":                `config.yaml:1: snapshot-interval: "soon": `,
		"tls-san:\n- a\n- {b: c}\n":              "config.yaml:2: tls-san: a list of strings is wanted; line 3 is none",
		"config-dir: /x":                         "config.yaml:1: config-dir says where this file is: give it as a flag or as KEELSON_CONFIG_DIR",
		"- bridge\n":                             "config.yaml:1: settings are wanted",
		"just words":                             "config.yaml:1: settings are wanted",
		"bridge: a\n---\nbridge: b\n":            "config.yaml:2: a second document",
		"bridge: a\n\tmax-pods: 1":               "config.yaml: it is not YAML: yaml: line 2",
		"a: &a [x]\nb: [*a,*a]":                  `config.yaml:1: unknown key "a"`,
		"bridge: &b keelson0\ntls-san: [*b, *b]": "config.yaml:2: tls-san: a list of strings is wanted",
		"\x00\x01\xff\xfe":                       "config.yaml: it is not YAML",
		"? [x]\n: y":                             "config.yaml:1: a flag's name is wanted here",
		"# " + strings.Repeat("x", settingsMost): "it is larger than 1048576 bytes",
	} {
		if _, err := configured(t, file, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v\nwant %q in it", file, err, want)
		}
	}
	for _, empty := range []string{"", "# nothing\n", "---\n", "{}"} {
		if _, err := configured(t, empty, nil); err != nil {
			t.Errorf("%q: %v", empty, err)
		}
	}
	// What loses is checked all the same: it would surprise on the day when the other goes.
	if _, err := configured(t, "max-pods: many", []string{"KEELSON_MAX_PODS=3"}, "--max-pods", "4"); err == nil {
		t.Error("a wrong value that a flag hides was taken")
	}
	if _, err := configured(t, "", []string{"KEELSON_MAX_PODS=many"}); err == nil || !strings.Contains(err.Error(), `KEELSON_MAX_PODS: max-pods: "many"`) {
		t.Errorf("a wrong variable: %v", err)
	}
}

// ND21: another's file, a pipe, a folder, none.
func TestHostile_ND21_file(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open.yaml")
	if err := os.WriteFile(open, []byte("bridge: b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{open: "anybody may write it (mode 0666)", dir: "it is no file (d", filepath.Join(dir, "none"): "no such file", "/dev/zero": "it is no file"} {
		var o options
		if err := configure(t, &o, dir, nil, "--config", path); err == nil || !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", path, err, want)
		}
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	var o options
	if err := configure(t, &o, filepath.Join(dir, "nothing"), []string{"KEELSON_CONFIG=" + open}); err != nil || o.node.Bridge != "b" {
		t.Errorf("the file that the environment names: %q, %v", o.node.Bridge, err)
	}
}
