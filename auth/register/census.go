package register

import (
	"hash/maphash"
	"sync"
)

// census is how many clients are registered, by what this node hears. It keeps a hash of
// each key, because an entry is told again whenever it changes: some twenty bytes each.
type census struct {
	seed maphash.Seed

	mu    sync.Mutex
	known map[uint64]struct{} // guarded by mu
	again map[uint64]struct{} // what is told since the watch was lost; guarded by mu
}

func newCensus() *census {
	return &census{seed: maphash.MakeSeed(), known: make(map[uint64]struct{})}
}

// told is called with each entry that is there, or gone.
func (c *census) told(key string, gone bool) {
	sum := maphash.String(c.seed, key)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range []map[uint64]struct{}{c.known, c.again} {
		switch {
		case of == nil:
		case gone:
			delete(of, sum)
		default:
			of[sum] = struct{}{}
		}
	}
}

// lost is called when all entries will be told again: those that are not have gone.
func (c *census) lost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again = make(map[uint64]struct{})
}

// synced is called when all have been told.
func (c *census) synced() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.again != nil {
		c.known, c.again = c.again, nil
	}
}

// count is how many there are.
func (c *census) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.known)
}
