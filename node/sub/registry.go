package sub

import (
	"hash/maphash"
	"maps"
	"math"
	"strings"
	"sync"

	"hadal/protocol"
)

// shards is the number of parts of each of the two tables; a power of two.
const shards = 64

// keepCap is the capacity below which a name's slice is never shrunk.
const keepCap = 16

// Registry knows who subscribed to which name. All methods may be called from
// anywhere at any time. See the package comment for its locks.
type Registry struct {
	seed    maphash.Seed
	names   [shards]nameShard
	clients [shards]clientShard
	wild    wild
}

type nameShard struct {
	mu   sync.RWMutex
	subs map[string]*subscribers // guarded by mu
	most int                     // names since subs was made, at the most; guarded by mu
	n    int                     // subscriptions in this shard; guarded by mu
	full uint64                  // refused ones; guarded by mu
	gate Gate                    // guarded by mu
	_    [32]byte                // keeps neighbours out of one cache line pair
}

// subscribers is one name and its clients, guarded by the mutex of its nameShard.
type subscribers struct {
	name string // our own copy, shared with the clients' tables
	list []subscriber
	// whole is how many of them want whole records.
	whole int
}

// subscriber carries the id so that neither Deliver nor a removal has to ask the client.
type subscriber struct {
	id uint64
	c  Client
}

type clientShard struct {
	mu  sync.Mutex
	own map[uint64]map[string]int // client id → name → index in subscribers.list; guarded by mu
	_   [112]byte
}

// fewAlone is how many subscribers a message may have that is still written to each by
// who delivers it (protocol.Message.Alone). With more the publisher's next message is
// likely to be there before the last is written, and both go out in one write if others
// write them.
const fewAlone = 4

// keepNames is how many names a shard has room for in any case.
const keepNames = 256

// Stats are the numbers of a Registry at one moment.
type Stats struct {
	// Names is how many names have at least one subscriber.
	Names int
	// Subscriptions is how many pairs of name and client there are.
	Subscriptions int
	// Refused is how many have been refused to clients that had too many.
	Refused uint64
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	r := &Registry{seed: maphash.MakeSeed()}
	for i := range shards {
		r.names[i].subs = make(map[string]*subscribers)
		r.clients[i].own = make(map[uint64]map[string]int)
	}
	return r
}

func (r *Registry) nameShard(name string) *nameShard {
	return &r.names[maphash.String(r.seed, name)%shards]
}

func (r *Registry) clientShard(id uint64) *clientShard { return &r.clients[id%shards] }

// Added says what became of a subscription.
type Added uint8

const (
	// Ended is that of a client that has gone. Nothing happened.
	Ended Added = iota
	// Already is a second one. Nothing happened.
	Already
	// Full is one more than the client may have. Nothing happened.
	Full
	// Refused is one that the rules of the moment refuse, which the client was told.
	// Nothing happened. Add, which asks no rules, never returns it.
	Refused
	// First is the first one of its name.
	First
	// Further is any other.
	Further
)

// Add subscribes c to name. A client is never added after RemoveClient took it
// out, whichever goroutine comes first, provided that Gone was true before
// RemoveClient was called. The name is copied when it is kept. No rule is asked: see
// Subscribe.
func (r *Registry) Add(name string, c Client) Added {
	added, _ := r.add(name, c, math.MaxUint64)
	return added
}

// add is Add for a subscription that was let in by rules of some generation. When it
// returns rules nothing happened: they have to be asked first.
func (r *Registry) add(name string, c Client, judged uint64) (Added, Rules) {
	id := c.ID()
	ns, cs := r.nameShard(name), r.clientShard(id)
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if rules := ns.gate.Holds(judged); rules != nil {
		return Refused, rules
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	own := cs.own[id]
	if _, ok := own[name]; ok {
		return Already, nil
	}
	if c.Gone() {
		return Ended, nil
	}
	if !c.Reserve(Weight(name)) {
		ns.full++
		return Full, nil
	}
	added := Further
	s := ns.subs[name]
	if s == nil {
		s = &subscribers{name: strings.Clone(name)}
		ns.subs[s.name] = s
		ns.most = max(ns.most, len(ns.subs))
		added = First
	}
	if own == nil {
		own = make(map[string]int, 1)
		cs.own[id] = own
	}
	own[s.name] = len(s.list)
	s.list = append(s.list, subscriber{id, c})
	if WantsWhole(c) {
		s.whole++
	}
	ns.n++
	return added, nil
}

// Remove unsubscribes c from name. removed is false when it was not subscribed;
// last says that the name has no subscriber any more.
func (r *Registry) Remove(name string, c Client) (removed, last bool) {
	return r.remove(name, c.ID())
}

func (r *Registry) remove(name string, id uint64) (removed, last bool) {
	ns := r.nameShard(name)
	ns.mu.Lock()
	defer ns.mu.Unlock()
	i, ok := r.disown(name, id)
	if !ok {
		return false, false
	}
	s := ns.subs[name]
	ns.n--
	s.list[i].c.Release(Weight(name))
	if WantsWhole(s.list[i].c) {
		s.whole--
	}
	end := len(s.list) - 1
	if end == 0 {
		ns.drop(name)
		return true, true
	}
	if i != end {
		s.list[i] = s.list[end]
		r.moved(s.name, s.list[i].id, i)
	}
	s.list[end] = subscriber{} // or the client would live on behind the slice's end
	s.list = s.list[:end]
	if cap(s.list) > keepCap && end < cap(s.list)/4 {
		s.list = append(make([]subscriber, 0, cap(s.list)/2), s.list...)
	}
	return true, false
}

// drop forgets a name. A map keeps the room of all it ever held, so it is made anew
// when little is left of what it was. The caller holds mu.
func (ns *nameShard) drop(name string) {
	delete(ns.subs, name)
	if ns.most < keepNames || len(ns.subs) >= ns.most/4 {
		return
	}
	subs := make(map[string]*subscribers, len(ns.subs))
	maps.Copy(subs, ns.subs)
	ns.subs, ns.most = subs, len(subs)
}

// disown takes name out of the client's own table and returns its place in the
// name's list. The caller holds the name's shard.
func (r *Registry) disown(name string, id uint64) (index int, ok bool) {
	cs := r.clientShard(id)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	own := cs.own[id]
	if index, ok = own[name]; !ok {
		return 0, false
	}
	if len(own) == 1 {
		delete(cs.own, id)
	} else {
		delete(own, name)
	}
	return index, true
}

// moved notes the new place of a client in the name's list. The caller holds the name's shard.
func (r *Registry) moved(name string, id uint64, index int) {
	cs := r.clientShard(id)
	cs.mu.Lock()
	cs.own[id][name] = index
	cs.mu.Unlock()
}

// RemoveClient ends all of c's subscriptions and returns the names that have no
// subscriber any more. It costs as many steps as c has names.
func (r *Registry) RemoveClient(c Client) (lost []string) {
	id := c.ID()
	for _, name := range r.NamesOf(c) {
		if _, last := r.remove(name, id); last {
			lost = append(lost, name)
		}
	}
	return lost
}

// NamesOf is what c has subscribed to, in no order.
func (r *Registry) NamesOf(c Client) []string {
	id := c.ID()
	cs := r.clientShard(id)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	names := make([]string, 0, len(cs.own[id]))
	for name := range cs.own[id] {
		names = append(names, name)
	}
	return names
}

// RemoveName unsubscribes everybody from name and returns who that was.
func (r *Registry) RemoveName(name string) []Client {
	ns := r.nameShard(name)
	ns.mu.Lock()
	defer ns.mu.Unlock()
	s := ns.subs[name]
	if s == nil {
		return nil
	}
	were := make([]Client, len(s.list))
	for i, e := range s.list {
		r.disown(name, e.id)
		e.c.Release(Weight(name))
		were[i] = e.c
	}
	ns.drop(name)
	ns.n -= len(were)
	return were
}

// Deliver sends o to every subscriber of name but except (nil for none) and
// returns to how many. What one goroutine delivers under a name arrives in that
// order everywhere. It holds the name's shard for reading while it sends, so
// after Remove has returned nothing more is sent; Send must not call back. o is the
// caller's alone until then: with many subscribers it ceases to be Alone.
//
// Who has a filter for name gets it too, if it may hear of name: see Watcher.
func (r *Registry) Deliver(name string, except Client, o *protocol.Outbound) int {
	n := r.deliver(name, except, o)
	if r.wild.n.Load() > 0 {
		n += r.DeliverWild(name, except, o)
	}
	return n
}

func (r *Registry) deliver(name string, except Client, o *protocol.Outbound) int {
	ns := r.nameShard(name)
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	s := ns.subs[name]
	if s == nil {
		return 0
	}
	if len(s.list) > fewAlone {
		o.Alone = false
	}
	if except == nil {
		for i := range s.list {
			s.list[i].c.Send(o)
		}
		return len(s.list)
	}
	not, sent := except.ID(), 0
	for i := range s.list {
		if e := &s.list[i]; e.id != not {
			e.c.Send(o)
			sent++
		}
	}
	return sent
}

// Has says whether name has a subscriber.
func (r *Registry) Has(name string) bool { return r.Count(name) > 0 }

// Count is the number of subscribers of name.
func (r *Registry) Count(name string) int {
	ns := r.nameShard(name)
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	if s := ns.subs[name]; s != nil {
		return len(s.list)
	}
	return 0
}

// WantsWhole says whether name has a subscriber that hears whole records only.
func (r *Registry) WantsWhole(name string) bool {
	ns := r.nameShard(name)
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	s := ns.subs[name]
	return s != nil && s.whole > 0
}

// Subscribed says whether c subscribed to name.
func (r *Registry) Subscribed(name string, c Client) bool {
	id := c.ID()
	cs := r.clientShard(id)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	_, ok := cs.own[id][name]
	return ok
}

// Names calls yield with every name that has a subscriber, until it returns
// false: it can be ranged over. No lock is held meanwhile, so yield may call the
// registry; names that come or go during the walk may be missed or seen.
func (r *Registry) Names(yield func(name string) bool) {
	var names []string
	for i := range r.names {
		ns := &r.names[i]
		names = names[:0]
		ns.mu.RLock()
		for name := range ns.subs {
			names = append(names, name)
		}
		ns.mu.RUnlock()
		for _, name := range names {
			if !yield(name) {
				return
			}
		}
	}
}

// Stats counts names and subscriptions.
func (r *Registry) Stats() Stats {
	var st Stats
	for i := range r.names {
		ns := &r.names[i]
		ns.mu.RLock()
		st.Names += len(ns.subs)
		st.Subscriptions += ns.n
		st.Refused += ns.full
		ns.mu.RUnlock()
	}
	return st
}
