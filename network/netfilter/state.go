package netfilter

import (
	"bufio"
	"bytes"
	"strings"
)

// kernel is what a table dump says about our chains: enough to know what to remove, what to hook and what to keep.
type kernel struct {
	chains map[key]bool
	rules  map[key]int // rules per chain
	// roots holds, per root chain, the owners' chains it calls, in order.
	roots map[key][]string
	// based is true for a built-in chain whose first rule is the jump to our root; present without being first is false in
	// based and true in misplaced.
	based, misplaced map[key]bool
}

func emptyKernel() kernel {
	return kernel{map[key]bool{}, map[key]int{}, map[key][]string{}, map[key]bool{}, map[key]bool{}}
}

// parse reads the output of iptables-save. Lines it does not know belong to the host and are skipped.
func (n names) parse(dump []byte) kernel {
	k := emptyKernel()
	var table Table
	sc := bufio.NewScanner(bytes.NewReader(dump))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		switch {
		case strings.HasPrefix(line, "*"):
			table = Table(line[1:])
		case strings.HasPrefix(line, ":"):
			if name, _, ok := strings.Cut(line[1:], " "); ok && strings.HasPrefix(name, n.prefix+"-") {
				k.chains[key{table, name}] = true
			}
		case strings.HasPrefix(line, "-A "):
			n.parseRule(&k, table, strings.Fields(line))
		}
	}
	return k
}

func (n names) parseRule(k *kernel, table Table, f []string) {
	if len(f) < 2 {
		return
	}
	at := key{table, f[1]}
	k.rules[at]++
	if len(f) != 4 || f[2] != "-j" {
		return
	}
	root := key{table, n.root(f[1])}
	switch {
	case f[3] == root.name:
		k.based[at] = k.rules[at] == 1
		k.misplaced[at] = k.rules[at] != 1
	case n.owner(f[1]) == "" && strings.HasPrefix(f[1], n.prefix+"-"):
		k.roots[at] = append(k.roots[at], f[3])
	}
}
