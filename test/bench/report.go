package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"text/tabwriter"
	"time"
)

// figure is one measured value, and the peer's where there is one.
type figure struct {
	Name   string   `json:"name"`
	Unit   string   `json:"unit"`
	Ours   float64  `json:"ours"`
	Peer   *float64 `json:"peer,omitempty"`
	Target string   `json:"target,omitempty"`
}

// report collects figures in the order in which they are measured.
type report struct {
	Machine string   `json:"machine"`
	Peer    string   `json:"peer,omitempty"`
	Figures []figure `json:"figures"`
	Notes   []string `json:"notes,omitempty"`
}

func (r *report) add(name, unit string, ours float64, target string) *figure {
	r.Figures = append(r.Figures, figure{Name: name, Unit: unit, Ours: ours, Target: target})
	return &r.Figures[len(r.Figures)-1]
}

// table prints the figures for people; a ratio below 1 is in our favour where less is better.
func (r *report) table(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "figure\tunit\tkeelson\t%s\tratio\ttarget\t\n", r.Peer)
	for _, f := range r.Figures {
		peer, ratio := "", ""
		if f.Peer != nil {
			peer = fmt.Sprintf("%.1f", *f.Peer)
			if *f.Peer > 0 {
				ratio = fmt.Sprintf("%.2f", f.Ours / *f.Peer)
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%.1f\t%s\t%s\t%s\t\n", f.Name, f.Unit, f.Ours, peer, ratio, f.Target)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range r.Notes {
		fmt.Fprintln(out, "note:", n)
	}
	return nil
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
