package imagetest

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// On limits a fault to requests whose path contains part ("/blobs/",
// "/manifests/", a repository).
func On(part string, f Fault) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		return strings.Contains(r.URL.Path, part) && f(w, r, next)
	}
}

// Times lets a fault act on the first n requests that it would answer.
func Times(n int, f Fault) Fault {
	var left atomic.Int64
	left.Store(int64(n))
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		return left.Add(-1) >= 0 && f(w, r, next)
	}
}

// Status refuses with code; header is pairs of names and values.
func Status(code int, message string, header ...string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		Refuse(w, code, strings.ToUpper(strings.ReplaceAll(http.StatusText(code), " ", "_")), message)
		return true
	}
}

// Redirect sends requests to base, path and query kept.
func Redirect(base string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		http.Redirect(w, r, base+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		return true
	}
}

// ContentType serves with another Content-Type.
func ContentType(ct string) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		next.ServeHTTP(&wrapped{ResponseWriter: w, head: func() { w.Header().Set("Content-Type", ct) }}, r)
		return true
	}
}

// NoRanges serves as a registry that does not know Range requests.
func NoRanges() Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		r = r.Clone(r.Context())
		r.Header.Del("Range")
		next.ServeHTTP(w, r)
		return true
	}
}

// Cut breaks the connection after n bytes of each answer's body.
func Cut(n int64) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		left := n
		next.ServeHTTP(&wrapped{ResponseWriter: w, write: func(p []byte) (int, error) {
			if int64(len(p)) <= left {
				left -= int64(len(p))
				return w.Write(p)
			}
			w.Write(p[:left])
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler) // net/http's way to cut a connection
		}}, r)
		return true
	}
}

// Trickle sends n bytes of a body, then waits, and so on, until the client leaves.
func Trickle(n int, wait time.Duration) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		next.ServeHTTP(&wrapped{ResponseWriter: w, write: func(p []byte) (int, error) {
			for i := 0; i < len(p); i += n {
				if _, err := w.Write(p[i:min(i+n, len(p))]); err != nil {
					return i, err
				}
				http.NewResponseController(w).Flush()
				select {
				case <-time.After(wait):
				case <-r.Context().Done():
					panic(http.ErrAbortHandler)
				}
			}
			return len(p), nil
		}}, r)
		return true
	}
}

// Hang never answers, until the client leaves.
func Hang() Fault {
	return func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
}

// wrapped changes how an answer is sent.
type wrapped struct {
	http.ResponseWriter
	head  func()
	write func([]byte) (int, error)
}

func (w *wrapped) WriteHeader(code int) {
	if w.head != nil {
		w.head()
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *wrapped) Write(p []byte) (int, error) {
	if w.write != nil {
		return w.write(p)
	}
	return w.ResponseWriter.Write(p)
}

// BasicAuth demands a user and password.
func BasicAuth(user, password string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if u, p, ok := r.BasicAuth(); ok && u == user && p == password {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		Refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return true
	}
}

// TokenServer gives bearer tokens to a user and demands them of a registry's
// clients. It is an http.Handler (the realm) and, by Demand, a Fault.
type TokenServer struct {
	Realm          string // URL at which the clients find it
	User, Password string // "" lets everybody have a token
	IdentityToken  string // also taken, in the OAuth2 form

	mu       sync.Mutex
	issued   map[string]bool
	requests []Request
}

// Demand refuses requests without a token of this server.
func (t *TokenServer) Demand(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	t.mu.Lock()
	ok := t.issued[token]
	t.mu.Unlock()
	if ok {
		return false
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="`+t.Realm+`",service="test",scope="repository:any:pull"`)
	Refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	return true
}

// Expire forgets all tokens.
func (t *TokenServer) Expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.issued)
}

// Requests gives what was asked so far, and forgets it.
func (t *TokenServer) Requests() []Request {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.requests
	t.requests = nil
	return out
}

// ServeHTTP gives a token.
func (t *TokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests = append(t.requests, Request{r.Method, r.URL.Path, "", r.Header.Get("Authorization"), r.Header.Clone()})
	user, password, _ := r.BasicAuth()
	byUser := r.Method == http.MethodGet && user == t.User && password == t.Password
	byToken := r.Method == http.MethodPost && t.IdentityToken != "" && r.FormValue("grant_type") == "refresh_token" &&
		r.FormValue("refresh_token") == t.IdentityToken
	if !byUser && !byToken {
		w.WriteHeader(http.StatusUnauthorized)
		json.NewEncoder(w).Encode(map[string]string{"details": "incorrect username or password"})
		return
	}
	if t.issued == nil {
		t.issued = map[string]bool{}
	}
	token := "token-" + time.Now().Format("150405.000000000")
	t.issued[token] = true
	json.NewEncoder(w).Encode(map[string]string{"token": token})
}
