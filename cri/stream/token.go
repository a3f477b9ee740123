package stream

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"
	"time"
)

const (
	tokenLife  = time.Minute
	maxPending = 1000
)

// ErrTooMany is returned when too many streams were asked for and not opened.
var ErrTooMany = errors.New("too many streaming requests are waiting to be opened; try again in a minute")

// tokens maps one-shot tokens to requests. The oldest are dropped as new ones
// come, so nothing needs a timer.
type tokens struct {
	mu      sync.Mutex
	pending map[string]ticket
	order   []string // by age, oldest first; may hold consumed ones
}

type ticket struct {
	request any
	expires time.Time
}

func (t *tokens) issue(request any) (string, error) {
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", err
	}
	token, now := hex.EncodeToString(raw[:]), time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	if len(t.pending) >= maxPending {
		return "", ErrTooMany
	}
	if t.pending == nil {
		t.pending = map[string]ticket{}
	}
	t.pending[token] = ticket{request, now.Add(tokenLife)}
	t.order = append(t.order, token)
	return token, nil
}

// redeem gives the request of a token and makes the token worthless.
func (t *tokens) redeem(token string) (any, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.pending[token]
	delete(t.pending, token)
	if !ok || !time.Now().Before(k.expires) {
		return nil, false
	}
	return k.request, true
}

func (t *tokens) expire(now time.Time) {
	i := 0
	for ; i < len(t.order); i++ {
		k, ok := t.pending[t.order[i]]
		if ok && now.Before(k.expires) {
			break
		}
		delete(t.pending, t.order[i])
	}
	t.order = t.order[i:]
}
