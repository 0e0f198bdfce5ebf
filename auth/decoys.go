package auth

import (
	"slices"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// decoys are one hash of each kind that users have, the dearest that is known. A wrong
// password takes as long as all of them, and so does a name that nobody has: neither tells
// who has an account, nor how old its hash is. What a clear-text password takes nobody can
// measure, so there is none of these.
type decoys struct {
	mu   sync.RWMutex
	list []secret // never changed, but replaced; guarded by mu
}

// add has wrong passwords take as long as own, too.
func (d *decoys) add(own secret) {
	if own.kind() == kindClear {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.list, func(s secret) bool { return s.kind() == own.kind() })
	switch {
	case i < 0:
		d.list = append(slices.Clone(d.list), own)
	case work(d.list[i]) < work(own):
		d.list = slices.Clone(d.list)
		d.list[i] = own
	}
}

func (d *decoys) all() []secret {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.list
}

// waste takes the time of all kinds of hashes but that of own, which is nil for a name
// that nobody has.
func (d *decoys) waste(password string, own secret) {
	for _, s := range d.all() {
		if own == nil || s.kind() != own.kind() {
			s.matches(password)
		}
	}
}

// cost is the most that one hash of those checked for a user takes.
func (d *decoys) cost(own secret) (most Cost) {
	list := d.all()
	if own != nil {
		list = append([]secret{own}, list...)
	}
	for _, s := range list {
		c := s.cost()
		most = Cost{max(most.Memory, c.Memory), max(most.Threads, c.Threads)}
	}
	return most
}

// work is by how much a hash is dearer than others of its kind.
func work(s secret) int {
	switch s := s.(type) {
	case bcryptSecret:
		cost, err := bcrypt.Cost(s)
		if err != nil {
			return 0 // parseBcrypt takes none like that
		}
		return cost
	case argon2idSecret:
		return int(s.params.Memory) * int(s.params.Iterations)
	}
	return 0 // all PBKDF2 hashes of a strategy are of its one digest
}
