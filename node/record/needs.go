package record

import (
	"context"
	"maps"
	"slices"
	"strings"

	"hadal/auth"
	"hadal/node/sub"
)

// This file is for clients whose dialect has no words for a change of a record, only for
// the whole of it, and for those that subscribe by filters.
//
// The node of such a client says so to its peers, and only then does a PATCH carry the
// whole record between nodes: of a name, from when the client subscribes to it
// (frameWhole comes before what it asks) until its node, which nobody needs that of any
// more, gets one (frameLight). While a node has filters, it tells with what the names
// begin that they may be for (frameHeads), and gets all updates of those. What a filter
// misses because a link or an owner is lost is not made up for: nobody knows which names
// those were.

// maxHeads is how many beginnings of names peers are told; of more they are told none in
// particular, which is all names.
const maxHeads = 64

// Watch subscribes a client to the records that a filter matches and that it may hear of.
// It hears of changes, as of a subscription by name, but not what is there now. All names
// that the filter is for begin with one of heads.
func (r *Room) Watch(filter string, heads []string, w *sub.Watcher) sub.Added {
	added := r.subs.Watch(filter, w)
	if added == sub.First || added == sub.Further {
		r.tune(heads, 1)
	}
	return added
}

// Unwatch ends that. heads are those of Watch.
func (r *Room) Unwatch(filter string, heads []string, w *sub.Watcher) {
	if removed, _ := r.subs.Unwatch(filter, w); removed {
		r.tune(heads, -1)
	}
}

// tune counts the heads of one filter more, or less, and tells the peers if that changes
// anything. What a client asks after it has returned comes behind that at every peer.
func (r *Room) tune(heads []string, n int) {
	r.linking.Lock()
	defer r.linking.Unlock()
	for _, h := range heads {
		if r.filters[h] += n; r.filters[h] == 0 {
			delete(r.filters, h)
		}
	}
	now := slices.Sorted(maps.Keys(r.filters))
	if len(now) > maxHeads {
		now = []string{""}
	}
	if slices.Equal(now, *r.heads.Load()) {
		return
	}
	r.heads.Store(&now)
	for _, l := range *r.links.Load() {
		l.tellHeads(now)
		l.flush()
	}
}

// begins says whether a name begins with one of heads.
func begins(name string, heads []string) bool {
	return slices.ContainsFunc(heads, func(h string) bool { return strings.HasPrefix(name, h) })
}

// watches says whether peers have been told that filters here may be for a name.
func (r *Room) watches(name string) bool { return begins(name, *r.heads.Load()) }

// tellHeads tells the peer; a new one knows of none.
func (l *link) tellHeads(heads []string) {
	l.emit(&frame{kind: frameHeads, names: heads})
}

// peerHeads notes what a peer has filters for.
func (r *Room) peerHeads(l *link, heads []string) {
	was := *l.heads.Swap(&heads)
	r.wide.Add(int32(min(len(heads), 1)) - int32(min(len(was), 1)))
}

// watches says whether the peer has filters that may be for a name.
func (l *link) watches(name string) bool { return begins(name, *l.heads.Load()) }

// lighten has updates of a name go to a node without the whole record, unless a request
// that is newer than id needs it.
func (o *owner) lighten(name string, l *link, id uint64) {
	all := o.interest[name]
	for i := range all {
		if all[i].link == l && all[i].whole < id {
			all[i].whole = 0
		}
	}
}

// heard says whether anybody hears of changes of a record.
func (o *owner) heard(name string) bool {
	return len(o.interest[name]) > 0 || o.subs.Wants(name) || o.room.wide.Load() > 0 && len(o.interested(name)) > 0
}

// interested are the nodes that hear of changes of a record.
func (o *owner) interested(name string) []interest {
	all := o.interest[name]
	if o.room.wide.Load() == 0 {
		return all
	}
	all = slices.Clone(all)
	for _, l := range *o.room.links.Load() {
		if !l.watches(name) {
			continue
		}
		if i := slices.IndexFunc(all, func(i interest) bool { return i.link == l }); i >= 0 {
			all[i].whole = max(all[i].whole, 1)
		} else {
			all = append(all, interest{link: l, whole: 1})
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
