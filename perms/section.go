package perms

import (
	"cmp"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync/atomic"
)

const (
	// remembered is how many names' rules a section remembers; a power of two.
	remembered = 1 << 13
	// longName is the length of names, in bytes, that are not remembered.
	longName = 256
)

// section finds the rules of a name among the paths of one section.
type section struct {
	// byPrefix has the paths by the literal they begin with, best first.
	byPrefix map[string][]*node
	// prefixLengths are the lengths of byPrefix's keys, each once.
	prefixLengths []int
	// unfound is where a search starts: MaxInt for each rule type that some path
	// defines, -1 for the others, which need not be looked for.
	unfound [maxSlots]int

	rules []*rule // in the order of the file

	seed maphash.Seed
	// memory holds what was found for recent names, each at the place its hash
	// says. A name that comes to a taken place takes it over.
	memory [remembered]atomic.Pointer[found]
}

// node is one path with its rules.
type node struct {
	*path
	rules [maxSlots]*rule // nil where the path does not define a type
	rank  int             // the lower, the better; no two are equal
}

// found are the rules that decide for one name. It never changes.
type found struct {
	name  string
	rules [maxSlots]match
}

// match is the rule that decides, and what its path's variables stand for. Without
// a rule it denies.
type match struct {
	*rule
	vars []string
}

// newSection indexes nodes, which stand in the order of the file.
func newSection(nodes []*node) *section {
	s := &section{byPrefix: make(map[string][]*node), seed: maphash.MakeSeed()}
	slices.Reverse(nodes) // of equal lengths the later wins
	slices.SortStableFunc(nodes, func(a, b *node) int { return cmp.Compare(b.length, a.length) })
	for i := range s.unfound {
		s.unfound[i] = -1
	}
	for i, n := range nodes {
		n.rank = i
		for slot, r := range n.rules {
			if r != nil {
				s.unfound[slot] = math.MaxInt
			}
		}
		s.byPrefix[n.prefix] = append(s.byPrefix[n.prefix], n)
	}
	for prefix := range s.byPrefix {
		s.prefixLengths = append(s.prefixLengths, len(prefix))
	}
	slices.Sort(s.prefixLengths)
	s.prefixLengths = slices.Compact(s.prefixLengths)
	return s
}

// find is the rules of a name, remembered or searched.
func (s *section) find(name string) *found {
	if len(name) >= longName {
		return s.search(name)
	}
	place := &s.memory[maphash.String(s.seed, name)%remembered]
	if f := place.Load(); f != nil && f.name == name {
		return f
	}
	name = strings.Clone(name) // it is a piece of a frame
	f := s.search(name)
	f.name = name
	place.Store(f)
	return f
}

// search looks the rules of a name up in the index.
func (s *section) search(name string) *found {
	f := &found{}
	ranks := s.unfound // of the rules in f
	for _, n := range s.prefixLengths {
		if n > len(name) {
			break
		}
		for _, node := range s.byPrefix[name[:n]] {
			if node.rank > slices.Max(ranks[:]) {
				break // those behind it are worse still
			}
			if !node.matches(name) {
				continue
			}
			var vars []string
			for slot, r := range node.rules {
				if r != nil && node.rank < ranks[slot] {
					if r.expr != nil && vars == nil {
						vars = node.values(name)
					}
					f.rules[slot], ranks[slot] = match{r, vars}, node.rank
				}
			}
		}
	}
	return f
}
