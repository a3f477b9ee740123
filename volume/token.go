package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// tokens keeps the service account tokens of the node's pods in memory. After a restart each is asked for anew.
type tokens struct {
	now     func() time.Time
	request func(ctx context.Context, namespace, serviceAccount string, r *authv1.TokenRequest) (*authv1.TokenRequest, error)

	mu sync.Mutex
	m  map[tokenKey]token
}

type tokenKey struct {
	pod      types.UID
	account  string
	audience string
	seconds  int64
}

type token struct {
	value   string
	renew   time.Time // 80 % of its life, or a day, whichever is first
	expires time.Time
}

// get returns a token that has at least a fifth of its life before it. When a new one cannot be had, the old one serves as long
// as it is valid: a pod must not suffer from a short outage of the API.
func (t *tokens) get(ctx context.Context, pod *corev1.Pod, p *corev1.ServiceAccountTokenProjection) (string, error) {
	tok, err := t.find(ctx, pod, p)
	return tok.value, err
}

// find is get with what is known of the token.
func (t *tokens) find(ctx context.Context, pod *corev1.Pod, p *corev1.ServiceAccountTokenProjection) (token, error) {
	k := tokenKey{pod: pod.UID, account: pod.Spec.ServiceAccountName, audience: p.Audience, seconds: 3600}
	if p.ExpirationSeconds != nil {
		k.seconds = *p.ExpirationSeconds
	}
	now := t.now()
	t.mu.Lock()
	old, ok := t.m[k]
	t.mu.Unlock()
	if ok && now.Before(old.renew) {
		return old, nil
	}
	tok, err := t.ask(ctx, pod, k)
	if err != nil {
		if ok && now.Before(old.expires) {
			return old, nil
		}
		return token{}, fmt.Errorf("token of service account %q: %w", k.account, err)
	}
	t.mu.Lock()
	t.m[k] = tok
	t.mu.Unlock()
	return tok, nil
}

func (t *tokens) ask(ctx context.Context, pod *corev1.Pod, k tokenKey) (token, error) {
	if t.request == nil {
		return token{}, errors.New("this node has no way to ask for one")
	}
	r := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		ExpirationSeconds: &k.seconds,
		BoundObjectRef:    &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if k.audience != "" {
		r.Spec.Audiences = []string{k.audience}
	}
	got, err := t.request(ctx, pod.Namespace, k.account, r)
	if err != nil {
		return token{}, err
	}
	if got.Status.Token == "" || strings.ContainsAny(got.Status.Token, "\n\x00") {
		return token{}, errors.New("the answer holds no usable token")
	}
	now := t.now() // after the answer: the life is counted from when we have it, so a skewed clock of the server does no harm
	life := got.Status.ExpirationTimestamp.Sub(now)
	if asked := time.Duration(k.seconds) * time.Second; life <= 0 || life > 2*asked {
		life = asked
	}
	return token{value: got.Status.Token, renew: now.Add(min(life*8/10, 24*time.Hour)), expires: now.Add(life)}, nil
}

func (t *tokens) next(uid types.UID) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	var first time.Time
	for k, tok := range t.m {
		if k.pod == uid && (first.IsZero() || tok.renew.Before(first)) {
			first = tok.renew
		}
	}
	return first
}

func (t *tokens) forget(uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range t.m {
		if k.pod == uid {
			delete(t.m, k)
		}
	}
}
