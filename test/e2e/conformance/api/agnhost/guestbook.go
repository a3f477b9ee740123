package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
)

// guestbook is one of three: the primary keeps what is written, replicas read it from the primary by its Service's name, and the
// frontend writes to the primary and reads from the replicas.
func guestbook(f *flag.FlagSet, args []string) error {
	role := f.String("role", "frontend", "frontend, primary or replica")
	port := f.Int("http-port", 80, "to listen on")
	_ = f.Parse(args)
	serve := map[string]http.HandlerFunc{"frontend": frontend, "primary": (&primary{kept: map[string]string{}}).serve, "replica": forward("http://agnhost-primary:6379")}[*role]
	if serve == nil {
		return errors.New("there is no role " + *role)
	}
	http.HandleFunc("/", serve)
	return http.ListenAndServe(fmt.Sprint(":", *port), nil)
}

type primary struct {
	mu   sync.Mutex
	kept map[string]string // guarded by mu
}

func (p *primary) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if key := r.FormValue("key"); r.FormValue("cmd") == "set" {
		p.kept[key] = r.FormValue("value")
		say(w, map[string]string{"message": "Updated"})
	} else {
		say(w, map[string]string{"data": p.kept[key]})
	}
}

// forward asks another Service the same.
func forward(base string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		answer, err := http.Get(base + "/guestbook?" + url.Values(r.Form).Encode())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body)
	}
}

func frontend(w http.ResponseWriter, r *http.Request) {
	backend := "http://agnhost-replica:6379"
	if r.FormValue("cmd") == "set" {
		backend = "http://agnhost-primary:6379"
	}
	forward(backend)(w, r)
}

func say(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	b, err := json.Marshal(answer)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(b)
}
