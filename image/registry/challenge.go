package registry

import "strings"

// challenge is one WWW-Authenticate challenge (RFC 9110, 11.6.1).
type challenge struct {
	scheme string            // lower case: "basic", "bearer"
	params map[string]string // keys in lower case
}

// parseChallenges reads all header values. What it cannot read it leaves out: an
// unread challenge means that no credentials are sent.
func parseChallenges(values []string) []challenge {
	var out []challenge
	for i, v := range values {
		if i == 8 {
			break
		}
		s := scanner{s: v}
		for len(out) < 16 {
			scheme := s.token()
			if scheme == "" {
				break
			}
			c := challenge{scheme: strings.ToLower(scheme), params: map[string]string{}}
			for s.param(c.params) {
			}
			out = append(out, c)
			s.skip(" \t,")
		}
	}
	return out
}

type scanner struct {
	s string
	i int
}

func (s *scanner) skip(chars string) {
	for s.i < len(s.s) && strings.IndexByte(chars, s.s[s.i]) >= 0 {
		s.i++
	}
}

func (s *scanner) token() string {
	s.skip(" \t,")
	from := s.i
	for s.i < len(s.s) && isTokenByte(s.s[s.i]) {
		s.i++
	}
	return s.s[from:s.i]
}

// param reads key=value or key="value"; false, with nothing consumed, when what
// comes next is no parameter (the next challenge's scheme, or the end).
func (s *scanner) param(into map[string]string) bool {
	at := s.i
	key := s.token()
	s.skip(" \t")
	if key == "" || s.i >= len(s.s) || s.s[s.i] != '=' {
		s.i = at
		return false
	}
	s.i++
	s.skip(" \t")
	value := ""
	if s.i < len(s.s) && s.s[s.i] == '"' {
		value = s.quoted()
	} else {
		value = s.token()
	}
	if _, twice := into[strings.ToLower(key)]; !twice {
		into[strings.ToLower(key)] = value
	}
	return true
}

func (s *scanner) quoted() string {
	var b strings.Builder
	for s.i++; s.i < len(s.s); s.i++ {
		switch c := s.s[s.i]; {
		case c == '"':
			s.i++
			return b.String()
		case c == '\\' && s.i+1 < len(s.s):
			s.i++
			b.WriteByte(s.s[s.i])
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isTokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
