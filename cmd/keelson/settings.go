package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

const (
	settingsFile = "config.yaml" // in --config-dir; those of config.yaml.d/*.yaml come after it, in order of their names
	settingsMost = 1 << 20       // bytes of one file
	envPrefix    = "KEELSON_"
)

// A setting is what one place says about a flag.
type setting struct {
	values []string // several of a list only
	from   string   // file:line, or the variable
}

func (s setting) String() string { return strings.Join(s.values, ",") }

// configure gives a command's flags what the environment and the configuration file say. A flag that was given wins over the
// environment, the environment over the file, a file of config.yaml.d over those before it, and the file over the default.
// Both may hold any flag of `keelson server`; what this command does not have is checked and left alone.
func (o *options) configure(flags *pflag.FlagSet, environ []string) error {
	known := knownFlags()
	env, near := fromEnvironment(known, environ)
	o.told.near = near
	// Where the file is cannot be said in it.
	for _, name := range []string{"config-dir", "config"} {
		if s, has := env[name]; has && !flags.Changed(name) {
			if err := s.set(flags.Lookup(name)); err != nil {
				return err
			}
		}
		delete(env, name)
	}
	file, err := o.fromFiles(known)
	if err != nil {
		return err
	}
	for _, source := range []map[string]setting{file, env} { // each is checked, whether it is used or not
		for _, name := range slices.Sorted(maps.Keys(source)) {
			if err := source[name].set(known.Lookup(name)); err != nil {
				return fmt.Errorf("%s: %w", source[name].from, err)
			}
		}
	}
	for name, s := range env {
		if f, both := file[name]; both && f.String() != s.String() {
			o.told.conflicts = append(o.told.conflicts, fmt.Sprintf("%s=%s wins over %q of %s", s.from, s, f, f.from))
		}
		file[name] = s
	}
	for _, name := range slices.Sorted(maps.Keys(file)) {
		f := flags.Lookup(name)
		if f == nil {
			continue
		}
		if f.Changed {
			other := knownFlags().Lookup(name)
			if err := file[name].set(other); err == nil && f.Value.String() != other.Value.String() {
				o.told.conflicts = append(o.told.conflicts, fmt.Sprintf("--%s=%s wins over %q of %s", name, f.Value, file[name], file[name].from))
			}
			continue
		}
		if err := file[name].set(f); err != nil {
			return fmt.Errorf("%s: %w", file[name].from, err)
		}
		o.told.used = append(o.told.used, slog.String(name, file[name].String()))
	}
	slices.Sort(o.told.conflicts)
	return nil
}

// told is what configure has to say once there is a log.
type told struct {
	conflicts, near []string
	used            []any
}

func (t told) log(log *slog.Logger) {
	if len(t.used) > 0 {
		log.Info("settings of the configuration file and the environment", t.used...)
	}
	for _, c := range t.conflicts {
		log.Warn("a setting is there twice", "which", c)
	}
	for _, n := range t.near {
		log.Warn("an environment variable is not read", "which", n)
	}
}

// set gives a flag the setting's value. A list's elements are taken as they are.
func (s setting) set(f *pflag.Flag) error {
	var err error
	if list, is := f.Value.(pflag.SliceValue); is && len(s.values) != 1 {
		err = list.Replace(s.values)
	} else {
		err = f.Value.Set(s.String())
	}
	if err != nil {
		return fmt.Errorf("%s: %q: %w", f.Name, s, err)
	}
	return nil
}

// knownFlags are what may be set, with their defaults; those of the runtime alone are among the server's.
func knownFlags() *pflag.FlagSet {
	var o options
	cmd := &cobra.Command{}
	o.serverFlags(cmd)
	o.paths(cmd.Flags())
	return cmd.Flags()
}

// fromEnvironment finds the flags' variables, and such as look like a flag's with a mistake in it; any other may be somebody else's.
func fromEnvironment(known *pflag.FlagSet, environ []string) (found map[string]setting, near []string) {
	found = map[string]setting{}
	for _, line := range environ {
		variable, value, _ := strings.Cut(line, "=")
		rest, ours := strings.CutPrefix(variable, envPrefix)
		if !ours {
			continue
		}
		name := strings.ReplaceAll(strings.ToLower(rest), "_", "-")
		if known.Lookup(name) != nil && rest == strings.ToUpper(rest) {
			found[name] = setting{[]string{value}, variable}
		} else if best, d := nearest(known, name); d <= 2 {
			near = append(near, fmt.Sprintf("%s: is %s meant?", variable, envPrefix+strings.ToUpper(strings.ReplaceAll(best, "-", "_"))))
		}
	}
	return found, near
}

// fromFiles reads --config, or config.yaml and config.yaml.d of --config-dir, which need not be there.
func (o *options) fromFiles(known *pflag.FlagSet) (map[string]setting, error) {
	paths := []string{o.place.ConfigFile}
	if o.place.ConfigFile == "" {
		main := filepath.Join(o.place.Config, settingsFile)
		more, err := filepath.Glob(main + ".d/*.yaml") // sorted
		if err != nil {
			return nil, fmt.Errorf("--config-dir: %w", err)
		}
		paths = append([]string{main}, more...)
	}
	all := map[string]setting{}
	for _, path := range paths {
		data, err := readSettings(path)
		if errors.Is(err, os.ErrNotExist) && o.place.ConfigFile == "" {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("configuration file %s: %w", path, err)
		}
		one, err := parseSettings(path, data, known)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, one)
	}
	return all, nil
}

// readSettings reads a file that cannot hold us up or be of just anybody: who writes it commands root.
func readSettings(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("it is no file (%s)", st.Mode().Type())
	case st.Mode().Perm()&0o002 != 0:
		return nil, fmt.Errorf("anybody may write it (mode %#o), and what it says is done as root: chmod o-w %s", st.Mode().Perm(), path)
	}
	data, err := io.ReadAll(io.LimitReader(f, settingsMost+1))
	if len(data) > settingsMost {
		return nil, fmt.Errorf("it is larger than %d bytes", settingsMost)
	}
	return data, err
}

// parseSettings takes one mapping of flags' names to values, and refuses anything else with its line.
func parseSettings(path string, data []byte, known *pflag.FlagSet) (map[string]setting, error) {
	at := func(n *yaml.Node, format string, args ...any) error {
		return fmt.Errorf("%s:%d: %s", path, n.Line, fmt.Sprintf(format, args...))
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil // nothing but comments
	} else if err != nil {
		return nil, fmt.Errorf("%s: it is not YAML: %w", path, err) // which names the line
	}
	top := doc.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" {
		return nil, nil
	}
	if top.Kind != yaml.MappingNode {
		return nil, at(top, "settings are wanted, each in a line `flag: value`; see keelson server --help")
	}
	if err := decoder.Decode(&more); err == nil {
		return nil, at(&more, "a second document: put all settings into one")
	} else if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: it is not YAML: %w", path, err)
	}
	out, lines := map[string]setting{}, map[string]int{}
	for i := 0; i < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		flag := known.Lookup(key.Value)
		switch {
		case key.Kind != yaml.ScalarNode:
			return nil, at(key, "a flag's name is wanted here")
		case flag == nil:
			best, _ := nearest(known, strings.TrimLeft(key.Value, "-"))
			return nil, at(key, "unknown key %q; the nearest that there is: %s", key.Value, best)
		case key.Value == "config" || key.Value == "config-dir":
			return nil, at(key, "%s says where this file is: give it as a flag or as %s", key.Value, envPrefix+strings.ToUpper(strings.ReplaceAll(key.Value, "-", "_")))
		case lines[key.Value] > 0:
			return nil, at(key, "%s is in line %d already", key.Value, lines[key.Value])
		}
		values, err := scalars(value, flag.Value)
		if err != nil {
			return nil, at(value, "%s: %v", key.Value, err)
		}
		lines[key.Value], out[key.Value] = key.Line, setting{values, fmt.Sprintf("%s:%d", path, value.Line)}
	}
	return out, nil
}

// scalars takes the value of a key if it has the type of its flag.
func scalars(n *yaml.Node, v pflag.Value) ([]string, error) {
	want := map[string]string{"bool": "!!bool", "int": "!!int"}[v.Type()]
	want = cmp.Or(want, "!!str")
	if _, list := v.(pflag.SliceValue); list && n.Kind == yaml.SequenceNode {
		var out []string
		for _, e := range n.Content {
			if e.Kind != yaml.ScalarNode || e.Tag != want {
				return nil, fmt.Errorf("a list of strings is wanted; line %d is none", e.Line)
			}
			out = append(out, e.Value)
		}
		return out, nil
	}
	zero := v.Type() == "duration" && n.Tag == "!!int" && n.Value == "0"
	if n.Kind != yaml.ScalarNode || n.Tag != want && !zero {
		return nil, fmt.Errorf("%s is wanted", map[string]string{"!!bool": "true or false", "!!int": "a whole number",
			"!!str": map[bool]string{true: "a time such as " + (90 * time.Second).String(), false: "a string (in quotes, if it looks like something else)"}[v.Type() == "duration"]}[want])
	}
	return []string{n.Value}, nil
}

// nearest is the flag whose name takes the fewest changed letters to become name, and how many.
func nearest(known *pflag.FlagSet, name string) (best string, least int) {
	least = len(name) + 1
	known.VisitAll(func(f *pflag.Flag) {
		if d := distance(name, f.Name); best == "" || d < least {
			best, least = f.Name, d
		}
	})
	return best, least
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
