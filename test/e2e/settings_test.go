package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"keelson.dev/keelson/test/lab"
)

// ND21: a server whose configuration file is damaged begins nothing and names file, line and what was meant; mended, it does what the
// file says, but where the environment or a flag says otherwise, and tells of that once.
func TestHostile_ND21(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	c, err := lab.New(lab.Options{Dir: dir, Before: []string{"env", "KEELSON_MAX_PODS=19", "NOTIFY_SOCKET=" + systemd.LocalAddr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(c.Dir, "etc", "config.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]string{
		"max-pods: 17\ntaint-controlplane: true\n":   file + `:2: unknown key "taint-controlplane"; the nearest that there is: taint-control-plane`,
		"max-pods: 17\ntaint-control-plane: 1\n":     file + ":2: taint-control-plane: true or false is wanted",
		"max-pods: 17\n{\n":                          file + ": it is not YAML: yaml: line ",
		"max-pods: 17\nhealthz-port: 1\nmax-pods: 1": file + ":3: max-pods is in line 1 already",
	} {
		write(text)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v\nwant %q in it", text, err, want)
		}
		if left := begun(c); len(left) > 0 {
			t.Errorf("%q: refused, but begun: %v", text, left)
		}
	}
	// The flag --healthz-port is the lab's own.
	write("max-pods: 17\ntaint-control-plane: true\nhealthz-port: 1\n")
	if err := os.Truncate(filepath.Join(c.Dir, "server.log"), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	// What is started after the server finds it: systemd hears of the start once kubectl works, and not from those that were refused.
	word := make([]byte, 100)
	if err := systemd.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	n, err := systemd.Read(word)
	if _, missing := os.Stat(c.Kubeconfig); err != nil || missing != nil || !strings.HasPrefix(string(word[:n]), "READY=1") {
		t.Errorf("systemd is told %q, %v; kubeconfig: %v", word[:n], err, missing)
	}
	if err := c.WaitReady(t.Context()); err != nil {
		t.Error(err)
	} else {
		eventually(t, "the node has the environment's 19 pods and the file's taint alone", func() string {
			got := kubectl(t, c, "get", "node", c.NodeName, "-o", "jsonpath={.status.capacity.pods} {.spec.taints[*].key}")
			if got != "19 node-role.kubernetes.io/control-plane" { // that of a node not ready goes when its controller has seen it ready
				return "pods and taints: " + got
			}
			return ""
		})
		log, err := os.ReadFile(filepath.Join(c.Dir, "server.log"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"KEELSON_MAX_PODS=19 wins over " + strconv.Quote(strconv.Quote("17") + " of " + file + ":1")[1:], "wins over " + strconv.Quote(strconv.Quote("1") + " of " + file + ":3")[1:]} {
			if n := strings.Count(string(log), want); n != 1 {
				t.Errorf("%q is in the log %d times, want once:\n%s", want, n, log)
			}
		}
	}
	if err := c.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}
