package netfilter

import (
	"fmt"
	"regexp"
)

var nameForm = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,16}$`)

// key names a chain of the kernel.
type key struct {
	table Table
	name  string
}

// validate says what in the set cannot be put into the kernel: a bad name, a jump to nowhere, a loop is left to the kernel.
func (s Set) validate(n names, o Owner) error {
	own := map[key]bool{}
	for _, c := range s.Chains {
		k := key{c.Table, c.Name}
		if !nameForm.MatchString(c.Name) || len(n.chain(o, c.Name)) > maxChain {
			return fmt.Errorf("netfilter: chain name %q of %s is not usable", c.Name, o)
		}
		if own[k] {
			return fmt.Errorf("netfilter: chain %s of %s is in the set twice", c.Name, o)
		}
		own[k] = true
	}
	for _, c := range s.Chains {
		for _, r := range c.Rules {
			if v := r.Target.Verb; (v == Jump || v == Goto) && !own[key{c.Table, r.Target.Chain}] {
				return fmt.Errorf("netfilter: chain %s of %s jumps to %q, which is not in the set", c.Name, o, r.Target.Chain)
			}
		}
	}
	for _, h := range s.Hooks {
		if !own[key{h.Table, h.Chain}] {
			return fmt.Errorf("netfilter: hook %s of %s calls %q, which is not in the set", h.Base, o, h.Chain)
		}
	}
	return nil
}
