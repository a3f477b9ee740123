package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Kinds of failure, for errors.Is.
var (
	ErrNotFound     = errors.New("not found")
	ErrUnauthorized = errors.New("authorization failed")
	ErrUnreachable  = errors.New("registry is unreachable") // no answer, a broken one, or 5xx and 429 to the end of the retries
	ErrSize         = errors.New("blob has the wrong size")
	ErrStalled      = errors.New("no progress") // bytes came too slowly for too long
)

// StatusError is an answer with an unexpected status.
type StatusError struct {
	Method, URL string // URL without query and user info
	Status      string // "503 Service Unavailable"
	Code        int
	Message     string        // the registry's own words: "manifest unknown: ..."; may be ""
	RetryAfter  time.Duration // what a 429 or 503 asks for; 0 if it does not
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("unexpected status from %s request to %s: %s", e.Method, e.URL, e.Status)
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Is maps the status to a kind.
func (e *StatusError) Is(kind error) bool {
	switch kind {
	case ErrNotFound:
		return e.Code == http.StatusNotFound
	case ErrUnauthorized:
		return e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden
	case ErrUnreachable:
		return e.Code == http.StatusTooManyRequests || e.Code >= 500
	}
	return false
}

const maxErrorBody = 16 << 10 // bytes of an error answer that are read

// statusError reads an error answer and closes its body.
func statusError(resp *http.Response) *StatusError {
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	return &StatusError{
		Method:     resp.Request.Method,
		URL:        plainURL(resp.Request.URL),
		Status:     clean(resp.Status, 80),
		Code:       resp.StatusCode,
		Message:    serverMessage(body),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
}

// serverMessage takes the words out of an error body: the distribution API's
// list, a token server's details, or the text itself when it is short and plain.
func serverMessage(body []byte) string {
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details          string `json:"details"`
		Error            string `json:"error"`
		ErrorDescription string `json:"error_description"`
	}
	if json.Unmarshal(body, &doc) == nil {
		var all []string
		for _, e := range doc.Errors {
			s := strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
			if e.Message != "" {
				s = strings.TrimPrefix(s+": "+e.Message, ": ")
			}
			all = append(all, s)
		}
		for _, s := range []string{doc.Details, doc.Error, doc.ErrorDescription} {
			if s != "" {
				all = append(all, s)
			}
		}
		return clean(strings.Join(all, "; "), 400)
	}
	if s := strings.TrimSpace(string(body)); !strings.HasPrefix(s, "<") {
		return clean(s, 200)
	}
	return ""
}

// clean makes outside text fit for a log line and an Event.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < ' ' || r == 0x7f || r == '�' || (r >= 0x80 && r < 0xa0) || (r >= 0x202a && r <= 0x202e) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return strings.TrimSpace(s)
}

// plainURL drops the query (it may carry a signature) and user info.
func plainURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// plainError makes a transport error fit to print: http.Client's error carries
// the whole URL, query included.
func plainError(err error) error {
	var ue *url.Error
	if !errors.As(err, &ue) {
		return err
	}
	at := ue.URL
	if u, perr := url.Parse(ue.URL); perr == nil {
		at = plainURL(u)
	}
	return fmt.Errorf("%s %q: %w", ue.Op, at, ue.Err)
}

const maxRetryAfter = time.Minute

// retryAfter reads seconds or an HTTP date, at most a minute.
func retryAfter(v string, now time.Time) time.Duration {
	if v == "" {
		return 0
	}
	var d time.Duration
	if secs, err := time.ParseDuration(strings.TrimSpace(v) + "s"); err == nil {
		d = secs
	} else if at, err := http.ParseTime(v); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
