package record

import (
	"context"

	"hadal/auth"
	"hadal/node/sub"
)

// This file is for clients whose dialect has no words for a change of a record, only for
// the whole of it, and for those that subscribe by filters. While a node has such clients
// it says so to its peers, and only then a PATCH carries the whole record between nodes,
// or updates go to a node that has not asked for their name. What a filter misses because
// a link or an owner is lost is not made up for: nobody knows which names those were.

// The bits of frameNeeds.
const (
	needWhole uint32 = 1 << iota // updates shall carry the whole record
	needAll                      // and come of all names
)

// needs is what the clients of this node need. It is guarded by Room.linking.
type needs struct {
	whole int  // clients that need whole records
	all   bool // there are filters
}

func (n *needs) bits() (b uint32) {
	if n.whole > 0 {
		b |= needWhole
	}
	if n.all {
		b |= needAll
	}
	return b
}

// Whole notes that one client more (1), or less (-1), needs whole records. It is called
// before the client subscribes to its first one.
func (r *Room) Whole(n int) {
	r.need(func(now *needs) { now.whole += n })
}

// Watch subscribes a client to the records that a filter matches and that it may hear of.
// It hears of changes, as of a subscription by name, but not what is there now.
func (r *Room) Watch(filter string, w *sub.Watcher) sub.Added {
	added := r.subs.Watch(filter, w)
	r.need(func(now *needs) { now.all = r.subs.Watched() })
	return added
}

// Unwatch ends that.
func (r *Room) Unwatch(filter string, w *sub.Watcher) {
	r.subs.Unwatch(filter, w)
	r.need(func(now *needs) { now.all = r.subs.Watched() })
}

// need changes the needs and tells the peers. What a client asks after it has returned
// comes behind that at every peer.
func (r *Room) need(change func(*needs)) {
	r.linking.Lock()
	defer r.linking.Unlock()
	was := r.needs.bits()
	change(&r.needs)
	if now := r.needs.bits(); now != was {
		for _, l := range *r.links.Load() {
			l.tellNeeds(now)
			l.flush()
		}
	}
}

// tellNeeds tells the peer; a new one knows of none.
func (l *link) tellNeeds(bits uint32) {
	l.emit(&frame{kind: frameNeeds, bytes: uint64(bits)})
}

// peerNeeds notes what a peer needs.
func (r *Room) peerNeeds(l *link, bits uint32) {
	was := l.needs.Swap(bits)
	r.wide.Add(int32(bits&needAll>>1) - int32(was&needAll>>1))
}

// heard says whether anybody hears of changes of a record.
func (o *owner) heard(name string) bool {
	return o.room.wide.Load() > 0 || len(o.interest[name]) > 0 || o.subs.Wants(name)
}

// interested are the nodes that hear of changes of a record.
func (o *owner) interested(name string) []interest {
	all := o.interest[name]
	if o.room.wide.Load() == 0 {
		return all
	}
	named := all
	all = append([]interest(nil), all...)
	for _, l := range *o.room.links.Load() {
		if l.needs.Load()&needAll == 0 {
			continue
		}
		known := false
		for _, i := range named {
			known = known || i.link == l
		}
		if !known {
			all = append(all, interest{link: l})
		}
	}
	return all
}

// MayHear says whether a user may subscribe to a record whose data is this. It may block,
// for some seconds at most, and is false when another record that the rule reads cannot
// be had.
func (r *Room) MayHear(ctx context.Context, u *auth.User, name, data string) bool {
	return r.judged(ctx, u, name, map[string]state{name: {data: data, exists: data != ""}})
}
