package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"text/tabwriter"
	"time"
)

// figure is one measured value, and the peers' where there are some.
type figure struct {
	Name   string     `json:"name"`
	Unit   string     `json:"unit"`
	Ours   float64    `json:"ours"`
	Peers  []*float64 `json:"peers,omitempty"` // in the order of report.Peers; nil: not measured
	Target string     `json:"target,omitempty"`
}

// report collects figures in the order in which they are measured.
type report struct {
	Machine string   `json:"machine"`
	Peers   []string `json:"peers,omitempty"`
	Figures []figure `json:"figures"`
	Notes   []string `json:"notes,omitempty"`
}

func (r *report) add(name, unit string, ours float64, target string) *figure {
	r.Figures = append(r.Figures, figure{Name: name, Unit: unit, Ours: ours, Target: target})
	return &r.Figures[len(r.Figures)-1]
}

func (r *report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// table prints the figures for people; a ratio (ours to the peer's) below 1 is in our favour where less is better.
func (r *report) table(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "figure\tunit\tkeelson\t")
	for _, p := range r.Peers {
		fmt.Fprintf(w, "%s\tratio\t", p)
	}
	fmt.Fprint(w, "target\t\n")
	for _, f := range r.Figures {
		fmt.Fprintf(w, "%s\t%s\t%s\t", f.Name, f.Unit, short(f.Ours))
		for i := range r.Peers {
			if i >= len(f.Peers) || f.Peers[i] == nil {
				fmt.Fprint(w, "\t\t")
				continue
			}
			ratio := "-"
			if *f.Peers[i] > 0 {
				ratio = fmt.Sprintf("%.2f", f.Ours / *f.Peers[i])
			}
			fmt.Fprintf(w, "%s\t%s\t", short(*f.Peers[i]), ratio)
		}
		fmt.Fprintf(w, "%s\t\n", f.Target)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range r.Notes {
		fmt.Fprintln(out, "note:", n)
	}
	return nil
}

// short prints small values with more digits.
func short(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 1:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

func (r *report) json(out io.Writer) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// quantile of durations in milliseconds; q between 0 and 1.
func quantile(d []time.Duration, q float64) float64 {
	if len(d) == 0 {
		return 0
	}
	s := append([]time.Duration(nil), d...)
	sort.Slice(s, func(i, j int) bool { return s[i] < s[j] })
	return milli(s[min(int(q*float64(len(s))), len(s)-1)])
}

func milli(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
