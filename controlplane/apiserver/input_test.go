package apiserver

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
)

// send sends a body and returns the status code.
func send(t *testing.T, c *rest.Config, method, path, mediaType string, body io.Reader) int {
	t.Helper()
	rt, err := rest.TransportFor(c)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, c.Host+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// endless is a body that goes on and on.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// Bodies that are bombs, not objects.
func TestHostile_AP6(t *testing.T) {
	r := start(t, "")
	const path = "/api/v1/namespaces/default/configmaps"
	alias := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := range 20 {
		alias += fmt.Sprintf("%c: &%c [%s]\n", 'b'+i, 'b'+i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", 'a'+i), 9), ","))
	}
	head := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":`
	for name, c := range map[string]struct {
		mediaType, body string
	}{
		"YAML aliases":  {"application/yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n" + alias},
		"deep JSON":     {"application/json", head + strings.Repeat(`{"a":`, 10_001) + "1" + strings.Repeat("}", 10_001) + "}"},
		"not a number":  {"application/json", head + `{"a":NaN}}`},
		"truncated":     {"application/json", head + `{"a":"b"`},
		"twice":         {"application/json", head + `{"a":"b","a":"c"}}`},
		"twice in YAML": {"application/yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: b, a: c}\n"},
		"order mark":    {"application/json", "\ufeff" + head + `{"a":"b"}}`},
		"nothing":       {"application/json", ""},
		"4 MB":          {"application/json", head + `{"a":"` + strings.Repeat("x", 4<<20) + `"}}`},
		"another kind":  {"application/json", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}`},
		"another group": {"application/json", `{"apiVersion":"apps/v1","kind":"ConfigMap","metadata":{"name":"x"}}`},
	} {
		if code := send(t, r.admin, http.MethodPost, path+"?fieldValidation=Strict", c.mediaType, strings.NewReader(c.body)); code != http.StatusBadRequest && code != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d; want 400 or 413", name, code)
		}
	}
	if code := send(t, r.admin, http.MethodPost, path, "application/json", io.MultiReader(strings.NewReader(head+`{"a":"`), endless{})); code != http.StatusRequestEntityTooLarge {
		t.Errorf("a body without an end: %d; want 413", code)
	}
	if code := send(t, r.admin, http.MethodPost, path, "application/x-tar", strings.NewReader("x")); code != http.StatusUnsupportedMediaType {
		t.Errorf("a tar: %d; want 415", code)
	}
}

// Patches that grow what they touch.
func TestHostile_AP7(t *testing.T) {
	r := start(t, "")
	maps := r.client.CoreV1().ConfigMaps("default")
	m := configMap("p")
	m.Data["a"] = strings.Repeat("x", 100<<10)
	must(t)(maps.Create(t.Context(), m, createOptions))
	var many, copies bytes.Buffer
	for i := range 10_001 {
		fmt.Fprintf(&many, `,{"op":"add","path":"/data/k%d","value":"v"}`, i)
	}
	for i := range 60 {
		fmt.Fprintf(&copies, `,{"op":"copy","from":"/data/a","path":"/data/c%d"}`, i)
	}
	for name, ops := range map[string]string{"10,001 operations": many.String(), "6 MB of copies": copies.String()} {
		_, err := maps.Patch(t.Context(), "p", types.JSONPatchType, []byte("["+ops[1:]+"]"), metav1.PatchOptions{})
		if !apierrors.IsRequestEntityTooLargeError(err) && !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v; want too large or invalid", name, err)
		}
	}
	_, err := r.client.CoreV1().Namespaces().Patch(t.Context(), "default", types.StrategicMergePatchType, []byte(`{"$patch":"nonsense"}`), metav1.PatchOptions{})
	if !apierrors.IsBadRequest(err) && !apierrors.IsInvalid(err) && !apierrors.IsInternalError(err) {
		t.Errorf("an unknown directive: %v", err)
	}
}

// Names that are paths.
func TestHostile_AP9(t *testing.T) {
	r := start(t, "")
	maps := r.client.CoreV1().ConfigMaps("default")
	for _, name := range []string{"..", ".", "a/b", "a%2Fb", "a\x00b", "A", strings.Repeat("a", 254), "-", ""} {
		if _, err := maps.Create(t.Context(), configMap(name), createOptions); !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err) {
			t.Errorf("name %q: %v; want invalid", name, err)
		}
	}
	must(t)(r.client.CoreV1().Secrets("default").Create(t.Context(), secret("s"), createOptions))
	for _, p := range []string{"..%2Fsecrets%2Fs", "%2e%2e%2fsecrets%2fs", "..%2F..%2Fsecrets%2Fdefault%2Fs"} {
		if code := get(t, r.admin, "/api/v1/namespaces/default/configmaps/"+p); code == http.StatusOK {
			t.Errorf("GET configmaps/%s is 200", p)
		}
	}
}

// Resource versions and continue tokens that never were.
func TestHostile_AP13(t *testing.T) {
	r := start(t, "")
	for query, want := range map[string]int{
		"resourceVersion=x": 400, "resourceVersion=-1": 400, "limit=1&continue=x": 400, "limit=-1": 200, "resourceVersion=0": 200,
		"resourceVersionMatch=Exact": 422, "limit=x": 400, "watch=1&timeoutSeconds=1&resourceVersion=x": 400,
		"resourceVersion=4000000000000": 504, // what is to come is waited for, not for ever
	} {
		code := get(t, r.admin, "/api/v1/namespaces/default/configmaps?"+query)
		if want/100 != code/100 {
			t.Errorf("%s: %d; want about %d", query, code, want)
		}
	}
}

// Selectors that select nothing that exists.
func TestHostile_AP14(t *testing.T) {
	r := start(t, "")
	for _, q := range []string{"fieldSelector=spec.nonsense%3Dx", "labelSelector=%21%21", "labelSelector=a%20in%20(", "labelSelector=" + strings.Repeat("a", 64<<10)} {
		if code := get(t, r.admin, "/api/v1/pods?"+q); code < 400 || code >= 500 {
			t.Errorf("%.40s: %d; want 4xx", q, code)
		}
	}
}

// Many writers of one object: no update is lost.
func TestHostile_AP33(t *testing.T) {
	r := start(t, "")
	maps := r.client.CoreV1().ConfigMaps("default")
	m := configMap("counter")
	m.Data["n"] = "0"
	must(t)(maps.Create(t.Context(), m, createOptions))
	const writers, each = 16, 4
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				backoff := retry.DefaultBackoff
				backoff.Steps = 1000
				err := retry.RetryOnConflict(backoff, func() error {
					have, err := maps.Get(t.Context(), "counter", getOptions)
					if err != nil {
						return err
					}
					var n int
					fmt.Sscan(have.Data["n"], &n)
					have.Data["n"] = fmt.Sprint(n + 1)
					_, err = maps.Update(t.Context(), have, updateOptions)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := maps.Get(t.Context(), "counter", getOptions)
	if err != nil || got.Data["n"] != fmt.Sprint(writers*each) {
		t.Errorf("counted %q, %v; want %d", got.Data["n"], err, writers*each)
	}
}
