package api

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

// flags are the server's, by name.
func flags(t *testing.T, c *lab.Cluster) map[string]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	args := strings.Split(string(b), "\x00")
	for i := 1; i < len(args); i++ {
		if name, ok := strings.CutPrefix(args[i-1], "--"); ok {
			out[name] = args[i]
		}
	}
	return out
}

// TestHostile_AP12: many lists of everything at once are streamed, not built in memory, and nobody else waits for them.
func TestHostile_AP12(t *testing.T) {
	c := labtest.Cluster(t)
	a := newAdmin(t)
	ns := a.namespace(t, "lists")
	for i := range 100 { // 20 MB
		m := named(fmt.Sprint("m", i), nil)
		m.Data = map[string]string{"a": strings.Repeat("x", 200<<10)}
		if _, err := a.create(t, ns, m); err != nil {
			t.Fatal(err)
		}
	}
	status := func(field string) (kB int) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), field+":")
		kB, err = strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		return kB
	}
	before := status("VmRSS")
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", c.Pid()), []byte("5"), 0); err != nil {
		t.Skip("the kernel does not reset the high-water mark of memory:", err)
	}
	rt, err := rest.TransportFor(a.Config)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	const lists = 40 // 0.8 GB
	for range lists {
		wg.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.Config.Host+"/api/v1/namespaces/"+ns+"/configmaps", nil)
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := rt.RoundTrip(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			n, err := io.Copy(io.Discard, resp.Body)
			if resp.StatusCode != http.StatusTooManyRequests && (resp.StatusCode != http.StatusOK || err != nil || n < 100*200<<10) {
				t.Errorf("a list: %s, %d bytes, %v", resp.Status, n, err)
			}
		})
	}
	for range 10 {
		if _, err := a.CoreV1().Namespaces().Get(t.Context(), ns, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	peak := status("VmHWM")
	t.Logf("resident %d MB before, %d MB at most", before>>10, peak>>10)
	if grown := peak - before; grown > 400<<10 {
		t.Errorf("lists of 0.8 GB in all took %d MB", grown>>10)
	}
}

// TestHostile_AP39: only the ports that are documented are open.
func TestHostile_AP39(t *testing.T) {
	c := labtest.Cluster(t)
	documented := []string{"10255"} // closed, whatever else
	for name, value := range flags(t, c) {
		if strings.HasSuffix(name, "-port") {
			documented = append(documented, value)
		}
	}
	documented = documented[1:]
	if len(documented) != 5 {
		t.Fatalf("ports by flags: %v", documented)
	}
	mine := map[string]bool{}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", c.Pid()))
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil {
			mine[target] = true
		}
	}
	seen := 0
	for _, table := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", c.Pid(), table))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(b), "\n")[1:] {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" || !mine["socket:["+f[9]+"]"] {
				continue
			}
			address, hex, _ := strings.Cut(f[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if err != nil {
				t.Fatal(err)
			}
			seen++
			loopback := address == "0100007F" || strings.HasSuffix(address, "0000000001000000") || strings.HasSuffix(address, "FFFF00000100007F")
			if !loopback && port != 53 && !slices.Contains(documented, fmt.Sprint(port)) {
				t.Errorf("port %d is open at %s", port, address)
			}
		}
	}
	if seen < 3 {
		t.Errorf("only %d sockets of the server's were found", seen)
	}
}

// TestHostile_AP40: the kubelet tells nobody anything who does not say who he is.
func TestHostile_AP40(t *testing.T) {
	c := labtest.Cluster(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // it is refused in any case
	defer client.CloseIdleConnections()
	for _, path := range []string{"/pods", "/runningpods/", "/stats/summary", "/metrics", "/metrics/cadvisor", "/metrics/resource", "/metrics/probes", "/logs/", "/configz", "/debug/pprof/",
		"/containerLogs/default/p/c", "/exec/default/p/c?command=id&output=1", "/run/default/p/c?cmd=id", "/attach/default/p/c", "/portForward/default/p", "/checkpoint/default/p/c", "/healthz"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			req, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("https://%s:%s%s", c.NodeIP, flags(t, c)["kubelet-port"], path), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s %s: %s", method, path, resp.Status)
			}
		}
	}
}
