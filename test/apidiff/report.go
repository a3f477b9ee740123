package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// report gathers the differences of one object, equal ones together.
type report struct {
	mu               sync.Mutex
	title            string
	asked, different int
	found            map[string]*difference
	notes            []string
}

type difference struct {
	mode       string
	tried      []string
	ours, peer []string
}

func newReport(o map[string]any) *report {
	return &report{title: fmt.Sprintf("%v %v %s", o["apiVersion"], o["kind"], nameOf(o)), found: map[string]*difference{}}
}

func (r *report) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, s)
}

var (
	address = regexp.MustCompile(`(clusterIPs?(\[\d\])?: )"[0-9.]+"`)
	port    = regexp.MustCompile(`([nN]odePort: )3[0-2]\d{3}`)
	index   = regexp.MustCompile(`\[\d+\]`)
	uid     = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	token   = regexp.MustCompile(`kube-api-access-[a-z0-9]{5}`)
	ages    = regexp.MustCompile(`(rows\[\d+\].cells\[\d+\]: )"\d+[smh](\d+s)?"`)
)

func masked(line string) string {
	line = address.ReplaceAllString(line, `${1}"ALLOCATED"`)
	line = uid.ReplaceAllString(line, "UID")
	line = port.ReplaceAllString(line, `${1}ALLOCATED`)
	line = ages.ReplaceAllString(line, `${1}"AGE"`)
	return token.ReplaceAllString(line, "kube-api-access-SUFFIX")
}

// add records an answer of both; it takes out the lines that are the same.
func (r *report) add(mode, what string, p pair) {
	ours, peer := beside(p.ours, p.peer)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	if len(ours) == 0 && len(peer) == 0 {
		return
	}
	r.different++
	// Differences are the same if their lines are, but for the values tried and the indices.
	key := mode + "\n" + shape(ours) + "\n---\n" + shape(peer)
	d := r.found[key]
	if d == nil {
		d = &difference{mode: mode, ours: ours, peer: peer}
		r.found[key] = d
	}
	d.tried = append(d.tried, what)
}

var quoted = regexp.MustCompile(`"(\\.|[^"\\])*"|'[^']*'|\b\d+\b`)

func shape(lines []string) string {
	return quoted.ReplaceAllString(index.ReplaceAllString(strings.Join(lines, "\n"), "[]"), "…")
}

func beside(a, b []string) (onlyA, onlyB []string) {
	count := map[string]int{}
	for i := range a {
		a[i] = masked(a[i])
		count[a[i]]++
	}
	for i := range b {
		b[i] = masked(b[i])
		if count[b[i]] > 0 {
			count[b[i]]--
			continue
		}
		onlyB = append(onlyB, b[i])
	}
	for _, line := range a {
		if count[line] > 0 {
			count[line]--
			onlyA = append(onlyA, line)
		}
	}
	return onlyA, onlyB
}

func (r *report) print(w io.Writer) {
	if len(r.found) == 0 && len(r.notes) == 0 {
		return
	}
	fmt.Fprintf(w, "# %s: %d asked, %d different in %d ways\n", r.title, r.asked, r.different, len(r.found))
	for _, n := range r.notes {
		fmt.Fprintf(w, "! %s\n", n)
	}
	var all []*difference
	for _, d := range r.found {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *difference) int {
		return strings.Compare(a.mode+slices.Min(a.tried), b.mode+slices.Min(b.tried))
	})
	for _, d := range all {
		slices.Sort(d.tried)
		fmt.Fprintf(w, "\n%s (%d): %s\n", d.mode, len(d.tried), strings.Join(d.tried[:min(4, len(d.tried))], " | "))
		lines(w, "ours", d.ours)
		lines(w, "peer", d.peer)
	}
	fmt.Fprintln(w)
}

func lines(w io.Writer, who string, ls []string) {
	for i, l := range ls {
		if i == 8 {
			fmt.Fprintf(w, "  %s … %d more\n", who, len(ls)-i)
			return
		}
		if len(l) > 400 {
			l = l[:300] + "…"
		}
		fmt.Fprintf(w, "  %s %s\n", who, l)
	}
}
