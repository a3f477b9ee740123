package apiserver

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// crashDir in the environment makes the test binary the child of TestHostile_RA2.
const crashDir = "KEELSON_TEST_CRASH_DIR"

// crashWriters is how many clients write at once, so that kill hits writes at every stage.
const crashWriters = 8

// A write that was acknowledged is there after kill -9 in the middle of others.
func TestHostile_RA2(t *testing.T) {
	if dir := os.Getenv(crashDir); dir != "" {
		writeForever(t, dir)
		return
	}
	dir := t.TempDir()
	const wanted = 200
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHostile_RA2$", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acknowledged []string
	for sc := bufio.NewScanner(out); sc.Scan(); {
		if name, ok := strings.CutPrefix(sc.Text(), "ack "); ok {
			acknowledged = append(acknowledged, name)
		}
		if len(acknowledged) == wanted {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	if len(acknowledged) < wanted {
		t.Fatalf("the child acknowledged %d writes; want %d", len(acknowledged), wanted)
	}

	r := start(t, dir)
	list, err := r.client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, m := range list.Items {
		have[m.Name] = true
	}
	for _, name := range acknowledged {
		if !have[name] {
			t.Errorf("%s was acknowledged and is lost", name)
		}
	}
	t.Logf("%d acknowledged, %d found", len(acknowledged), len(list.Items))
}

// writeForever is the child: it prints each name after the server has acknowledged it.
func writeForever(t *testing.T, dir string) {
	s, err := New(testConfig(dir), Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Run(context.Background()) }() // until this process is killed
	<-s.Ready()
	client, err := kubernetes.NewForConfig(s.ClientConfig(systemUser))
	if err != nil {
		t.Fatal(err)
	}
	names := make(chan string)
	for w := range crashWriters {
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("w%d-%d", w, i)
				if _, err := client.CoreV1().ConfigMaps("default").Create(context.Background(), configMap(name), createOptions); err == nil {
					names <- name
				}
			}
		}()
	}
	for name := range names {
		fmt.Println("ack " + name)
	}
}
