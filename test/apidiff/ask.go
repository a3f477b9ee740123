package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// server is one of the two API servers.
type server struct {
	name, host string
	client     *http.Client
}

func connect(name, kubeconfig string) (*server, error) {
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig of %s: %w", name, err)
	}
	c.QPS = -1
	client, err := rest.HTTPClientFor(c)
	if err != nil {
		return nil, err
	}
	client.Timeout = time.Minute
	host := c.Host
	if !strings.Contains(host, "://") {
		host = "https://" + host
	}
	return &server{name, strings.TrimSuffix(host, "/"), client}, nil
}

// answer is what a server said to one request.
type answer struct {
	code     int
	body     map[string]any
	warnings []string
}

// request is asked of both servers.
type request struct {
	method, path string
	query        url.Values
	accept       string
	contentType  string
	body         any
	headers      map[string]string
	title        string
}

func (s *server) ask(ctx context.Context, r request) (answer, error) {
	var body io.Reader
	switch b := r.body.(type) {
	case nil:
	case []byte:
		body = bytes.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return answer{}, err
		}
		body = bytes.NewReader(raw)
	}
	u := s.host + r.path
	if len(r.query) > 0 {
		u += "?" + r.query.Encode()
	}
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, r.method, u, body)
		if err != nil {
			return answer{}, err
		}
		if r.body != nil {
			req.Header.Set("Content-Type", "application/json")
			if r.contentType != "" {
				req.Header.Set("Content-Type", r.contentType)
			}
		}
		req.Header.Set("Accept", "application/json")
		if r.accept != "" {
			req.Header.Set("Accept", r.accept)
		}
		for k, v := range r.headers {
			req.Header.Set(k, v)
		}
		res, err := s.client.Do(req)
		if err != nil {
			return answer{}, fmt.Errorf("%s: %w", s.name, err)
		}
		raw, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			return answer{}, fmt.Errorf("%s: %w", s.name, err)
		}
		if res.StatusCode == http.StatusTooManyRequests && try < 5 {
			time.Sleep(time.Second) // what a server that is too busy asks for
			if b, ok := body.(*bytes.Reader); ok {
				b.Seek(0, io.SeekStart)
			}
			continue
		}
		a := answer{code: res.StatusCode, warnings: res.Header.Values("Warning")}
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&a.body); err != nil {
			a.body = map[string]any{"raw": string(raw)}
		}
		return a, nil
	}
}

// text lists what an answer says, a line each, with what is each server's own masked.
func (a answer) text(own map[string]string) []string {
	var out []string
	if a.body["kind"] == "Status" && a.body["status"] == "Failure" {
		out = append(out, fmt.Sprintf("%d %v", a.code, a.body["reason"]))
		details, _ := a.body["details"].(map[string]any)
		causes, _ := details["causes"].([]any)
		if len(causes) == 0 {
			out = append(out, "message: "+fmt.Sprint(a.body["message"]))
		} else {
			message := fmt.Sprint(a.body["message"])
			if at := strings.Index(message, ": "); at > 0 {
				out = append(out, "of: "+message[:at])
			}
			var said []string
			for _, c := range causes {
				c := c.(map[string]any)
				// What follows a line's end is a dump of Go types, which are each server's own.
				message, _, _ := strings.Cut(fmt.Sprint(c["message"]), "\n")
				said = append(said, fmt.Sprintf("%v %v: %v", c["reason"], c["field"], message))
			}
			slices.Sort(said)
			out = append(out, said...)
		}
		for _, k := range []string{"group", "kind", "name"} {
			if v, ok := details[k]; ok {
				out = append(out, fmt.Sprintf("details.%s: %v", k, v))
			}
		}
	} else {
		out = append(out, fmt.Sprintf("%d", a.code))
		flat(&out, nil, a.body)
	}
	for _, w := range a.warnings {
		out = append(out, "warning: "+w)
	}
	for i, line := range out {
		for from, to := range own {
			line = strings.ReplaceAll(line, from, to)
		}
		out[i] = line
	}
	return out
}

func flat(out *[]string, path []any, v any) {
	at := where(path)
	switch at {
	case "metadata.uid", "details.uid", "metadata.resourceVersion", "metadata.managedFields", "metadata.creationTimestamp":
		return
	}
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			*out = append(*out, at+": {}")
		}
		for _, k := range sortedKeys(v) {
			flat(out, append(slices.Clone(path), k), v[k])
		}
	case []any:
		if len(v) == 0 {
			*out = append(*out, at+": []")
		}
		for i, item := range v {
			flat(out, append(slices.Clone(path), i), item)
		}
	case string:
		if t, err := time.Parse(time.RFC3339, v); err == nil && time.Since(t).Abs() < 24*time.Hour {
			v = "NOW"
		}
		*out = append(*out, fmt.Sprintf("%s: %q", at, v))
	default:
		*out = append(*out, fmt.Sprintf("%s: %v", at, v))
	}
}
