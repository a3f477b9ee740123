package apiserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// dial opens a connection of a test's own to the server.
func (r *running) dial(t *testing.T, protocols ...string) *tls.Conn {
	t.Helper()
	c, err := rest.TLSConfigFor(r.admin)
	if err != nil {
		t.Fatal(err)
	}
	c.NextProtos, c.ServerName = protocols, "localhost"
	raw, err := net.Dial("tcp", strings.TrimPrefix(r.localURL(), "https://"))
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, c)
	t.Cleanup(func() { conn.Close() })
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return conn
}

// alive fails the test if the server does not say that it is well.
func (r *running) alive(t *testing.T) {
	t.Helper()
	if code := get(t, r.admin, "/livez"); code != http.StatusOK {
		t.Errorf("livez: %d", code)
	}
}

// TestHostile_AP11: watchers that do not read are let go; those that do miss nothing.
func TestHostile_AP11(t *testing.T) {
	r := start(t, "")
	// Of a kind whose watchers have short queues.
	big := &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Name: "big", Annotations: map[string]string{"a": strings.Repeat("x", 20<<10)}}, Template: corev1.PodTemplateSpec{Spec: pod("p").Spec}}
	templates := r.client.CoreV1().PodTemplates("default")
	made, err := templates.Create(t.Context(), big, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	const deaf, updates = 10, 1800 // 36 MB for each: more than the sockets between hold, and the thousand events that wait for a slow one
	path := "/api/v1/namespaces/default/podtemplates?watch=1&resourceVersion="
	var conns []*tls.Conn
	for range deaf {
		conn := r.dial(t, "http/1.1")
		if _, err := fmt.Fprintf(conn, "GET %s%s HTTP/1.1\r\nHost: x\r\n\r\n", path, made.ResourceVersion); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	patched := make(chan error, 1)
	go func() {
		for i := range updates {
			if _, err := templates.Patch(t.Context(), "big", types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{"n":"%d"}}}`, i), metav1.PatchOptions{}); err != nil {
				patched <- err
				return
			}
		}
		patched <- nil
	}()
	r.follow(t, path, made.ResourceVersion, updates)
	if err := <-patched; err != nil {
		t.Fatal(err)
	}
	r.alive(t)
	// Each of the deaf ones, when it reads at last, finds that its watch has ended.
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(startTimeout))
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", resp, err)
		} else if n, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatalf("a watch of one who did not listen goes on after %d bytes: %v", n, err)
		}
	}
}

// follow reads a watch of one object whose label n counts up, as client-go does: it goes on from the last version that it saw when
// the server ends the watch. It fails the test if an event is not the next.
func (r *running) follow(t *testing.T, path, from string, updates int) {
	t.Helper()
	next := watched(t, r.admin, path+from, "")
	for n := 0; n < updates; {
		f := next()
		if f.Type == "" {
			t.Logf("the watch of who listens ended after %d: %s", n, f.Object)
			next = watched(t, r.admin, path+from, "")
			continue
		}
		m := f.meta(t)
		if f.Type != watch.Modified || m.Labels["n"] != fmt.Sprint(n) {
			t.Fatalf("who listens heard %s %.200s, want %d of %d", f.Type, f.Object, n, updates)
		}
		from = m.ResourceVersion
		n++
	}
}

// TestHostile_AP30: neither streams that are reset as soon as they are opened, nor floods of control frames, nor connections that
// say nothing keep the server from others.
func TestHostile_AP30(t *testing.T) {
	r := start(t, "")
	for range 200 { // say nothing
		r.dial(t, "h2")
	}
	slow := r.dial(t, "http/1.1")
	if _, err := slow.Write([]byte("GET /livez HTTP/1.1\r\nHost:")); err != nil { // and no more
		t.Fatal(err)
	}
	var head strings.Builder
	enc := hpack.NewEncoder(&head)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "x"}, {":path", "/api/v1/pods"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	for name, send := range map[string]func(f *http2.Framer, i uint32) error{
		"resets": func(f *http2.Framer, i uint32) error {
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: []byte(head.String()), EndStream: true, EndHeaders: true}); err != nil {
				return err
			}
			return f.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
		},
		"pings":    func(f *http2.Framer, _ uint32) error { return f.WritePing(false, [8]byte{}) },
		"settings": func(f *http2.Framer, _ uint32) error { return f.WriteSettings() },
		"streams": func(f *http2.Framer, i uint32) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: []byte(head.String()), EndHeaders: true})
		},
	} {
		conn := r.dial(t, "h2")
		_ = conn.SetWriteDeadline(time.Now().Add(startTimeout)) // a server that does not read on is as good as one that hangs up
		if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
			t.Fatal(err)
		}
		f := http2.NewFramer(conn, conn)
		if err := f.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with the connection
		sent := uint32(0)
		for ; sent < 10_000; sent++ {
			if err := send(f, sent); err != nil {
				break // hung up on
			}
		}
		t.Logf("%s: %d taken", name, sent)
		r.alive(t)
	}
	must(t)(r.client.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("well"), createOptions))
}

// TestHostile_AP37: the names that clients ask for do not come into the server's certificate.
func TestHostile_AP37(t *testing.T) {
	r := start(t, "")
	names := func(sni string) []string {
		c, err := tls.Dial("tcp", strings.TrimPrefix(r.localURL(), "https://"), &tls.Config{ServerName: sni, InsecureSkipVerify: true}) // what it shows is looked at, not believed
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].DNSNames
	}
	before := names("")
	for i := range 50 {
		sni := fmt.Sprintf("host-%d.attacker.example", i)
		if got := names(sni); !slices.Equal(got, before) {
			t.Fatalf("asked as %s the certificate is for %v, was for %v", sni, got, before)
		}
	}
}

// TestHostile_RA14: watches that begin at any version in the past see each change once and in order, while the past is compacted.
func TestHostile_RA14(t *testing.T) {
	c := testConfig(t.TempDir())
	c.History = 100 * time.Millisecond
	r := startWith(t, c)
	maps := r.client.CoreV1().ConfigMaps("default")
	first, err := maps.Create(t.Context(), configMap("m"), createOptions)
	if err != nil {
		t.Fatal(err)
	}
	const changes, watchers = 300, 30
	versions := []string{first.ResourceVersion}
	var wg sync.WaitGroup
	for i := range changes {
		m, err := maps.Patch(t.Context(), "m", types.MergePatchType, fmt.Appendf(nil, `{"data":{"n":"%d"}}`, i), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, m.ResourceVersion)
		if i%(changes/watchers) != 0 {
			continue
		}
		from := max(0, i-50)
		next := watched(t, r.admin, "/api/v1/namespaces/default/configmaps?watch=1&fieldSelector=metadata.name%3Dm&resourceVersion="+versions[from], "")
		wg.Go(func() {
			for n := from; n < changes; n++ {
				f := next()
				var m corev1.ConfigMap
				if json.Unmarshal(f.Object, &m) != nil || m.Data["n"] != fmt.Sprint(n) || f.Type != watch.Modified {
					t.Errorf("a watch from change %d: %s %.200s; want change %d", from, f.Type, f.Object, n)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestHostile_RA22: objects of every size, and a storm of events that does not hold up leases.
func TestHostile_RA22(t *testing.T) {
	r := start(t, "")
	for _, size := range []int{256, 64 << 10, 1<<20 - 1024} {
		m := configMap(fmt.Sprint("size-", size))
		m.Data["a"] = strings.Repeat("x", size)
		must(t)(r.client.CoreV1().ConfigMaps("default").Create(t.Context(), m, createOptions))
		if got, err := r.client.CoreV1().ConfigMaps("default").Get(t.Context(), m.Name, getOptions); err != nil || len(got.Data["a"]) != size {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	storm := r.as(t, r.with(t, "storm", "system:masters")).CoreV1().Events("default")
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				_, _ = storm.Create(ctx, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("e%d-%d", w, i)},
					InvolvedObject: corev1.ObjectReference{Namespace: "default", Kind: "Pod", Name: "p"}, Reason: "Storm", Type: "Normal"}, createOptions)
			}
		})
	}
	node := r.as(t, r.with(t, "system:node:n1", "system:nodes")).CoordinationV1().Leases("kube-node-lease")
	lease, err := node.Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, createOptions)
	for i := 0; i < 20 && err == nil; i++ {
		now := metav1.NowMicro()
		lease.Spec.RenewTime = &now
		lease, err = node.Update(t.Context(), lease, updateOptions)
	}
	cancel()
	wg.Wait()
	if err != nil {
		t.Errorf("a lease in the storm: %v", err)
	}
}

// TestHostile_RA3: kill -9 while the history is compacted all the time, again and again on the same data. What was acknowledged is there,
// and versions only grow.
func TestHostile_RA3(t *testing.T) {
	if dir := os.Getenv(crashDir); dir != "" {
		compactForever(t, dir)
		return
	}
	dir := t.TempDir()
	acknowledged, highest := map[string]bool{}, uint64(0)
	for round := range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHostile_RA3$", "-test.timeout=2m")
		cmd.Env = append(os.Environ(), crashDir+"="+dir, fmt.Sprint("KEELSON_TEST_ROUND=", round))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		n := 0
		for sc := bufio.NewScanner(out); sc.Scan(); {
			var name string
			var rv uint64
			if _, err := fmt.Sscanf(sc.Text(), "ack %s %d", &name, &rv); err != nil {
				continue
			}
			if n == 0 && rv <= highest {
				t.Errorf("round %d begins at version %d, after %d", round, rv, highest)
			}
			acknowledged[name], highest = true, max(highest, rv)
			if n++; n == 300 {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		if n < 300 {
			t.Fatalf("round %d acknowledged %d writes", round, n)
		}
	}
	r := start(t, dir)
	list, err := r.client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list.Items {
		delete(acknowledged, m.Name)
	}
	if len(acknowledged) > 0 {
		t.Errorf("%d acknowledged writes are lost", len(acknowledged))
	}
}

// compactForever is the child: it writes and gives up its history several times a second.
func compactForever(t *testing.T, dir string) {
	c := testConfig(dir)
	c.History = 50 * time.Millisecond
	s, err := New(c, Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Run(context.Background()) }() // until this process is killed
	<-s.Ready()
	client, err := kubernetes.NewForConfig(s.ClientConfig(systemUser))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		m, err := client.CoreV1().ConfigMaps("default").Create(context.Background(), configMap(fmt.Sprintf("r%s-%d", os.Getenv("KEELSON_TEST_ROUND"), i)), createOptions)
		if err == nil {
			fmt.Println("ack", m.Name, m.ResourceVersion)
		}
	}
}
