package main

import (
	"context"
	"embed"
	"fmt"
	"strings"
)

//go:embed requests
var requestFiles embed.FS

// scripted are requests that are asked in order, as a file lists them.
func scripted(namespace string) ([]request, error) {
	raw, err := requestFiles.ReadFile("requests/machinery.txt")
	if err != nil {
		return nil, err
	}
	var out []request
	lines := strings.Split(strings.ReplaceAll(string(raw), "NS", namespace), "\n")
	for i := 0; i < len(lines); i++ {
		if lines[i] == "" || lines[i][0] == '#' {
			continue
		}
		r, err := parseRequest(lines[i])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		var body []string
		for i+1 < len(lines) && lines[i+1] != "" && !isRequest(lines[i+1]) {
			i++
			body = append(body, lines[i])
		}
		if len(body) > 0 {
			r.body = []byte(strings.Join(body, "\n"))
		}
		out = append(out, r)
	}
	return out, nil
}

func isRequest(line string) bool {
	for _, m := range []string{"GET /", "POST /", "PUT /", "PATCH /", "DELETE /"} {
		if strings.HasPrefix(line, m) {
			return true
		}
	}
	return false
}

func parseRequest(line string) (request, error) {
	fields := strings.Fields(line)
	if len(fields) < 2 || len(fields)%2 != 0 {
		return request{}, fmt.Errorf("%q is no request", line)
	}
	r := request{method: fields[0], path: fields[1], title: line, headers: map[string]string{}}
	for i := 2; i < len(fields); i += 2 {
		r.headers[strings.TrimSuffix(fields[i], ":")] = fields[i+1]
	}
	return r, nil
}

func (c *comparison) requests(ctx context.Context) (*report, error) {
	r := newReport(map[string]any{"apiVersion": "requests", "kind": ""})
	all, err := scripted(c.namespace)
	if err != nil {
		return nil, err
	}
	for _, q := range all {
		title := q.title
		if b, ok := q.body.([]byte); ok {
			title += " " + strings.ReplaceAll(string(b), "\n", "; ")
		}
		c.compare(ctx, r, "request", strings.ReplaceAll(title, c.namespace, "NS"), q)
	}
	return r, nil
}
