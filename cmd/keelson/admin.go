package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	"keelson.dev/keelson/image"
)

// The admin socket (0600) carries what CRI and the API have no call for: image archives, snapshots.

// adminHandler serves the image verbs over the daemon's own store, and what others add.
func adminHandler(store *image.Store, more func(*http.ServeMux)) http.Handler {
	mux := http.NewServeMux()
	if more != nil {
		more(mux)
	}
	mux.HandleFunc("POST /images/import", func(w http.ResponseWriter, r *http.Request) {
		images, err := store.Import(r.Context(), r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		for _, i := range images {
			fmt.Fprintln(w, i.ID, strings.Join(i.RepoTags, " "))
		}
	})
	mux.HandleFunc("GET /images/export", func(w http.ResponseWriter, r *http.Request) {
		refs := r.URL.Query()["ref"]
		for _, ref := range refs {
			if _, err := store.Get(ref); err != nil {
				http.Error(w, err.Error(), http.StatusNotFound)
				return
			}
		}
		if err := store.Export(r.Context(), w, refs...); err != nil {
			panic(http.ErrAbortHandler) // the client must see a broken stream, not a short archive
		}
	})
	mux.HandleFunc("POST /images/verify", func(w http.ResponseWriter, r *http.Request) {
		var report strings.Builder
		code := http.StatusOK
		for _, ref := range orAll(r.URL.Query()["ref"], store) {
			line := ref + " ok"
			if err := store.Verify(r.Context(), ref); err != nil {
				line, code = err.Error(), http.StatusUnprocessableEntity // and the others still
			}
			fmt.Fprintln(&report, line)
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, report.String())
	})
	return mux
}

// orAll is every image, by its first name, if none is asked for.
func orAll(refs []string, store *image.Store) []string {
	if len(refs) > 0 {
		return refs
	}
	for _, i := range store.List() {
		refs = append(refs, append(slices.Clone(i.RepoTags), i.ID)[0])
	}
	slices.Sort(refs)
	return refs
}

// listenUnix makes a socket that only root may use. A socket left by a killed process is replaced.
func listenUnix(path string, mode os.FileMode) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// adminCall sends one request to the daemon and copies the answer to out.
func adminCall(ctx context.Context, p places, method, path string, body io.Reader, out io.Writer) error {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", p.admin())
	}}}
	request, err := http.NewRequestWithContext(ctx, method, "http://keelson"+path, body)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("no keelson answers at %s: is it running with this --run-dir? (%w)", p.admin(), err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
		return errors.New(strings.TrimSpace(string(text)))
	}
	_, err = io.Copy(out, answer.Body)
	return err
}
