package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	ours := flag.String("ours", "", "kubeconfig of our server (default: one is started, without controllers and nodes)")
	peer := flag.String("peer", "", "kubeconfig of the server to compare with")
	kinds := flag.String("kinds", "", "compare these kinds alone (comma separated; default all)")
	modes := flag.String("modes", "requests,create,update,status,table,sub", "what to try; requests are those of requests/, and asked only if -kinds is not given")
	out := flag.String("out", "", "folder for a file of each kind (default: standard output)")
	only := flag.String("only", "", "try mutations alone whose text has this in it")
	flag.Parse()
	ctx := context.Background()
	if err := run(ctx, *ours, *peer, *kinds, *modes, *only, *out); err != nil {
		fmt.Fprintln(os.Stderr, "apidiff:", err)
		os.Exit(1)
	}
}

type comparison struct {
	ours, peer *server
	resources  map[string]resource // by apiVersion/Kind
	modes      []string
	only       string
	namespace  string
}

type resource struct {
	path       string // of the collection, with NS for the namespace
	namespaced bool
	verbs      []string
	subs       map[string]bool
	schemas    *schemas
	root       string
}

func run(ctx context.Context, ours, peer, kinds, modes, only, out string) (err error) {
	if ours == "" {
		kubeconfig, stop, err := start(ctx)
		if err != nil {
			return err
		}
		ours = kubeconfig
		defer func() { err = errors.Join(err, stop()) }()
	}
	o, err := connect("ours", ours)
	if err != nil {
		return err
	}
	p, err := connect("peer", peer)
	if err != nil {
		return err
	}
	c := &comparison{ours: o, peer: p, modes: strings.Split(modes, ","), only: only, namespace: fmt.Sprintf("apidiff-%d", os.Getpid())}
	objects, err := corpus()
	if err != nil {
		return err
	}
	if err := c.discover(ctx); err != nil {
		return err
	}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	defer c.clean(ctx)
	if slices.Contains(c.modes, "requests") && kinds == "" {
		r, err := c.requests(ctx)
		if err != nil {
			return err
		}
		r.print(os.Stdout)
	}
	total := 0
	seen := map[string]int{}
	for _, object := range objects {
		kind := object["kind"].(string)
		if kinds != "" && !slices.Contains(strings.Split(kinds, ","), kind) {
			continue
		}
		r := c.object(ctx, object)
		total += len(r.found)
		seen[kind]++
		fmt.Fprintf(os.Stderr, "%-32s %-30s %5d asked %5d different in %d ways\n", kind, nameOf(object), r.asked, r.different, len(r.found))
		w := os.Stdout
		if out != "" {
			os.MkdirAll(out, 0o755)
			f, err := os.Create(filepath.Join(out, fmt.Sprintf("%s-%d.txt", kind, seen[kind])))
			if err != nil {
				return err
			}
			w = f
		}
		r.print(w)
		if out != "" {
			w.Close()
		}
	}
	fmt.Fprintf(os.Stderr, "%d ways\n", total)
	return nil
}

func nameOf(o map[string]any) string {
	m, _ := o["metadata"].(map[string]any)
	n, _ := m["name"].(string)
	return n
}

// discover reads the peer's resources and schemas.
func (c *comparison) discover(ctx context.Context) error {
	c.resources = map[string]resource{}
	prefixes := map[string]string{"/api/v1": "v1"}
	groups, err := c.peer.ask(ctx, request{method: "GET", path: "/apis"})
	if err != nil {
		return err
	}
	list, _ := groups.body["groups"].([]any)
	for _, g := range list {
		for _, v := range g.(map[string]any)["versions"].([]any) {
			gv := v.(map[string]any)["groupVersion"].(string)
			prefixes["/apis/"+gv] = gv
		}
	}
	for prefix, gv := range prefixes {
		a, err := c.peer.ask(ctx, request{method: "GET", path: prefix})
		if err != nil {
			return err
		}
		doc, err := c.peer.ask(ctx, request{method: "GET", path: "/openapi/v3" + prefix})
		if err != nil {
			return err
		}
		raw, err := json.Marshal(doc.body["components"])
		if err != nil {
			return err
		}
		var components struct {
			Schemas map[string]*schema `json:"schemas"`
		}
		if err := json.Unmarshal(raw, &components); err != nil {
			return err
		}
		names := &schemas{components.Schemas}
		group, version, ok := strings.Cut(gv, "/")
		if !ok {
			group, version = "", gv
		}
		subs := map[string]map[string]bool{}
		all, _ := a.body["resources"].([]any)
		for _, r := range all {
			if plural, sub, ok := strings.Cut(r.(map[string]any)["name"].(string), "/"); ok {
				if subs[plural] == nil {
					subs[plural] = map[string]bool{}
				}
				subs[plural][sub] = true
			}
		}
		for _, r := range all {
			r := r.(map[string]any)
			name, kind := r["name"].(string), r["kind"].(string)
			if strings.Contains(name, "/") {
				continue
			}
			res := resource{path: prefix + "/" + name, namespaced: r["namespaced"].(bool), subs: subs[name], schemas: names, root: names.rootOf(group, version, kind)}
			if res.namespaced {
				res.path = prefix + "/namespaces/NS/" + name
			}
			for _, v := range r["verbs"].([]any) {
				res.verbs = append(res.verbs, v.(string))
			}
			c.resources[gv+"/"+kind] = res
		}
	}
	return nil
}

func (c *comparison) both(ctx context.Context, r request) (answer, answer, error) {
	var ours, peer answer
	var errOurs, errPeer error
	var wg sync.WaitGroup
	wg.Go(func() { ours, errOurs = c.ours.ask(ctx, r) })
	wg.Go(func() { peer, errPeer = c.peer.ask(ctx, r) })
	wg.Wait()
	if errOurs != nil {
		return ours, peer, errOurs
	}
	return ours, peer, errPeer
}

// prepare makes a namespace with its default service account on both.
func (c *comparison) prepare(ctx context.Context) error {
	ns := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": c.namespace}}
	a, b, err := c.both(ctx, request{method: "POST", path: "/api/v1/namespaces", body: ns})
	if err != nil {
		return err
	}
	if a.code != 201 || b.code != 201 {
		return fmt.Errorf("namespace %s: %d %v, %d %v", c.namespace, a.code, a.body["message"], b.code, b.body["message"])
	}
	sa := map[string]any{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "default"}}
	_, _, err = c.both(ctx, request{method: "POST", path: "/api/v1/namespaces/" + c.namespace + "/serviceaccounts", body: sa})
	return err
}

func (c *comparison) clean(ctx context.Context) {
	c.both(ctx, request{method: "DELETE", path: "/api/v1/namespaces/" + c.namespace})
}

// object compares everything about one object of the corpus.
func (c *comparison) object(ctx context.Context, object map[string]any) *report {
	r := newReport(object)
	res, ok := c.resources[object["apiVersion"].(string)+"/"+object["kind"].(string)]
	if !ok {
		r.note("the peer does not serve " + object["apiVersion"].(string) + "/" + object["kind"].(string))
		return r
	}
	collection := strings.ReplaceAll(res.path, "NS", c.namespace)
	bare := c.bare(object)
	dry := url.Values{"dryRun": {"All"}, "fieldValidation": {"Strict"}}
	if slices.Contains(c.modes, "create") {
		c.each(ctx, r, "create", mutations(res.schemas, res.root, bare), func(m mutation) (request, request, bool) {
			o, ok := m.apply(bare)
			q := request{method: "POST", path: collection, query: dry, body: o}
			return q, q, ok
		})
	}
	if !slices.Contains(res.verbs, "get") {
		return r
	}
	name := nameOf(object)
	one := collection + "/" + url.PathEscape(name)
	made := c.compare(ctx, r, "base", "made", request{method: "POST", path: collection, query: url.Values{"fieldValidation": {"Strict"}}, body: bare})
	defer func() {
		grace := url.Values{"gracePeriodSeconds": {"0"}, "propagationPolicy": {"Background"}}
		c.compare(ctx, r, "base", "deleted", request{method: "DELETE", path: one, query: grace})
		free := []byte(`{"metadata":{"finalizers":null}}`)
		c.both(ctx, request{method: "PATCH", path: one, contentType: "application/merge-patch+json", body: free})
	}()
	if status, ok := object["status"]; ok && res.subs["status"] {
		raw, _ := json.Marshal(map[string]any{"status": status})
		c.compare(ctx, r, "base", "status", request{method: "PATCH", path: one + "/status", contentType: "application/merge-patch+json", body: raw})
	}
	switch object["kind"] {
	case "APIService", "CustomResourceDefinition", "FlowSchema":
		time.Sleep(3 * time.Second) // until the servers have written what they think of it into its status
	}
	ours, peer, err := c.both(ctx, request{method: "GET", path: one})
	if err != nil || ours.code != 200 || peer.code != 200 {
		r.note(fmt.Sprintf("the object could not be made: %d, %d, %v: %v", ours.code, peer.code, err, made.body["message"]))
		return r
	}
	mine, theirs := live(ours.body), live(peer.body)
	if slices.Contains(c.modes, "update") && slices.Contains(res.verbs, "update") {
		c.each(ctx, r, "update", mutations(res.schemas, res.root, theirs), func(m mutation) (request, request, bool) {
			return c.puts(m, mine, theirs, one, dry)
		})
	}
	if slices.Contains(c.modes, "status") && res.subs["status"] {
		c.each(ctx, r, "status", mutations(res.schemas, res.root, theirs, "status", "metadata", "spec"), func(m mutation) (request, request, bool) {
			return c.puts(m, mine, theirs, one+"/status", dry)
		})
	}
	if slices.Contains(c.modes, "sub") {
		for _, sub := range []string{"approval", "ephemeralcontainers", "resize", "scale"} {
			if !res.subs[sub] {
				continue
			}
			mine, theirs := mine, theirs
			root, schemas := res.root, res.schemas
			if sub == "scale" {
				a, b, err := c.both(ctx, request{method: "GET", path: one + "/scale"})
				if err != nil || a.code != 200 || b.code != 200 {
					r.note(fmt.Sprintf("scale: %d, %d, %v", a.code, b.code, err))
					continue
				}
				mine, theirs = live(a.body), live(b.body)
				sc := c.resources["autoscaling/v1/HorizontalPodAutoscaler"].schemas
				root, schemas = sc.rootOf("autoscaling", "v1", "Scale"), sc
			}
			c.each(ctx, r, sub, mutations(schemas, root, theirs), func(m mutation) (request, request, bool) {
				return c.puts(m, mine, theirs, one+"/"+sub, dry)
			})
		}
	}
	if slices.Contains(c.modes, "table") {
		for _, at := range []string{one, collection} {
			c.compare(ctx, r, "table", "of "+at[len(collection):], request{method: "GET", path: at, accept: "application/json;as=Table;v=v1;g=meta.k8s.io",
				query: url.Values{"includeObject": {"None"}}})
		}
	}
	return r
}

// live is an object as it is, in the form that mutations change.
func live(o map[string]any) map[string]any {
	raw, _ := json.Marshal(o)
	var out map[string]any
	json.Unmarshal(raw, &out)
	delete(out["metadata"].(map[string]any), "managedFields")
	return integers(out).(map[string]any)
}

// bare is an object of the corpus without its status, in our namespace.
func (c *comparison) bare(object map[string]any) map[string]any {
	raw, _ := json.Marshal(object)
	var out map[string]any
	json.Unmarshal([]byte(strings.ReplaceAll(string(raw), "NAMESPACE", c.namespace)), &out)
	delete(out, "status")
	return integers(out).(map[string]any)
}

func (c *comparison) puts(m mutation, mine, theirs map[string]any, path string, dry url.Values) (request, request, bool) {
	a, okA := m.apply(mine)
	b, okB := m.apply(theirs)
	return request{method: "PUT", path: path, query: dry, body: a}, request{method: "PUT", path: path, query: dry, body: b}, okA && okB
}

func (c *comparison) each(ctx context.Context, r *report, mode string, ms []mutation, make func(mutation) (request, request, bool)) {
	work := make2(ms)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for m := range work {
				if c.only != "" && !strings.Contains(m.String(), c.only) {
					continue
				}
				a, b, ok := make(m)
				if !ok {
					continue
				}
				ours, errOurs := c.ours.ask(ctx, a)
				peer, errPeer := c.peer.ask(ctx, b)
				r.add(mode, m.String(), c.mask(ours, peer, errOurs, errPeer))
			}
		})
	}
	wg.Wait()
}

func make2(ms []mutation) <-chan mutation {
	c := make(chan mutation, len(ms))
	for _, m := range ms {
		c <- m
	}
	close(c)
	return c
}

// compare asks both once and returns the peer's answer.
func (c *comparison) compare(ctx context.Context, r *report, mode, what string, q request) answer {
	ours, errOurs := c.ours.ask(ctx, q)
	peer, errPeer := c.peer.ask(ctx, q)
	r.add(mode, what, c.mask(ours, peer, errOurs, errPeer))
	return peer
}

type pair struct{ ours, peer []string }

func (c *comparison) mask(ours, peer answer, errOurs, errPeer error) pair {
	if errOurs != nil || errPeer != nil {
		return pair{[]string{fmt.Sprint(errOurs)}, []string{fmt.Sprint(errPeer)}}
	}
	return pair{ours.text(c.own(ours)), peer.text(c.own(peer))}
}

// own is what a server alone has in its answer, and what stands for it.
func (c *comparison) own(a answer) map[string]string {
	out := map[string]string{c.namespace: "NAMESPACE"}
	if m, ok := a.body["metadata"].(map[string]any); ok {
		if uid, ok := m["uid"].(string); ok && uid != "" {
			out[uid] = "UID"
		}
		if rv, ok := m["resourceVersion"].(string); ok && len(rv) > 3 {
			out[rv] = "RV"
		}
	}
	credentials(a.body, out)
	return out
}

// credentials adds the names of the certificates by which we are known: each server's authority has given its own.
func credentials(v any, out map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			if ids, ok := v[k].([]any); ok && k == "authentication.kubernetes.io/credential-id" && len(ids) == 1 {
				out[fmt.Sprint(ids[0])] = "CREDENTIAL"
				continue
			}
			credentials(v[k], out)
		}
	}
}
