package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/podlog"
)

// logs answers with a container's log.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	pod := s.pod(w, r)
	if pod == nil {
		return
	}
	q := r.URL.Query()
	o, err := logOptions(q, time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	name := r.PathValue("container")
	c, err := s.node.Container(r.Context(), pod, name, q.Get("previous") == "true")
	if err != nil {
		http.Error(w, err.Error(), statusOf(pod, name))
		return
	}
	dir, file, err := s.logFile(c)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if o.Follow {
		ended, free := s.node.Ended(pod.UID, c.ID)
		defer free()
		o.Ended = ended
	}
	out := &lateWriter{w: w}
	err = podlog.Copy(r.Context(), out, out.flush, s.cfg.LogRoot, dir, file, o)
	switch {
	case err == nil:
		out.begin()
	case out.begun:
		s.cfg.Log.Info("log stream ended early", "pod", pod.Name, "container", name, "err", err)
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, fmt.Sprintf("the log of container %q is gone from the node: it was removed or rotated away", name), http.StatusNotFound)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// logFile splits a container's log path, which must be below the log root: anything else is not ours to show.
func (s *Server) logFile(c observe.Container) (dir, file string, err error) {
	rel, err := filepath.Rel(s.cfg.LogRoot, c.LogPath)
	if err != nil || c.LogPath == "" || !filepath.IsLocal(rel) || !strings.Contains(rel, "/") {
		return "", "", fmt.Errorf("container %q has its log at %q, which is not below %s", c.Name, c.LogPath, s.cfg.LogRoot)
	}
	return path.Dir(rel), path.Base(rel), nil
}

// logOptions reads a query in the words of core/v1 PodLogOptions.
func logOptions(q url.Values, now time.Time) (podlog.Options, error) {
	o := podlog.Options{Tail: -1, Limit: -1, Follow: q.Get("follow") == "true", Timestamps: q.Get("timestamps") == "true"}
	number := func(name string, least int64) (int64, bool, error) {
		if q.Get(name) == "" {
			return 0, false, nil
		}
		n, err := strconv.ParseInt(q.Get(name), 10, 64)
		if err != nil || n < least {
			return 0, false, fmt.Errorf("%s: %q is not a number of at least %d", name, q.Get(name), least)
		}
		return n, true, nil
	}
	tail, has, err := number("tailLines", 0)
	if err != nil {
		return o, err
	}
	if has {
		o.Tail = tail
	}
	limit, has, err := number("limitBytes", 1)
	if err != nil {
		return o, err
	}
	if has {
		o.Limit = limit
	}
	since, has, err := number("sinceSeconds", 1)
	if err != nil {
		return o, err
	}
	if has {
		o.Since = now.Add(-time.Duration(min(since, 1<<32)) * time.Second)
	}
	if text := q.Get("sinceTime"); text != "" {
		if o.Since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return o, fmt.Errorf("sinceTime: %w", err)
		}
	}
	switch stream := q.Get("stream"); stream {
	case "", "All":
	case "Stdout", "Stderr":
		o.Stream = strings.ToLower(stream)
	default:
		return o, fmt.Errorf("stream: %q is not All, Stdout or Stderr", stream)
	}
	return o, nil
}

// lateWriter sends the header with the first byte, so that an error before it can still be told as one.
type lateWriter struct {
	w     http.ResponseWriter
	begun bool
}

func (l *lateWriter) begin() {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "text/plain")
		l.w.WriteHeader(http.StatusOK)
	}
}

func (l *lateWriter) Write(b []byte) (int, error) {
	l.begin()
	return l.w.Write(b)
}

// flush brings to the client what it has not seen yet.
func (l *lateWriter) flush() {
	l.begin()
	if f, is := l.w.(http.Flusher); is {
		f.Flush()
	}
}
