package record

import (
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"hadal/protocol"
)

// This file is what an owner does for subscribers on other nodes, and for those here
// that were subscribed while another node was the owner. All of it runs on the owner.

// resyncNames is how many names are compared at once.
const resyncNames = 256

// resyncStep is how many of them may be answered before the peer has taken anything.
const resyncStep = 8

// resyncPause is how long a name rests whose record could not be loaded to compare it.
const resyncPause = time.Second

// absentLeast is from how many absent names on it is worth to look which of them nobody
// is subscribed to any more.
const absentLeast = 1024

// interest is that of another node in a name. id is that of its newest request that
// caused it: requests of several clients may be served in another order than they
// were sent, and one to forget must not end what was asked for after it.
type interest struct {
	link *link
	id   uint64
	// whole is the id of the newest request of a client there that wants whole records; 0
	// when there is none.
	whole uint64
}

// knowing is what subscribers of this node know of a name whose owner is elsewhere.
type knowing struct {
	knowledge
	// synced says that this is also what the present owner tells: it knows of our
	// interest, and what has changed before it did has been told.
	synced bool
	failed bool // the owner could not say what is there
}

// hash is what nodes compare instead of data.
func hash(data string) uint64 { return xxhash.Sum64String(data) }

// knowledge is what whoever is told the state knows.
func (s state) knowledge() knowledge {
	k := knowledge{exists: s.exists, sure: true}
	if s.exists {
		k.version, k.hash = s.version, hash(s.data)
	}
	return k
}

// same says whether two know the same.
func (k knowledge) same(other knowledge) bool {
	return k.sure && other.sure && k.exists == other.exists && (!k.exists || k.version == other.version && k.hash == other.hash)
}

// register notes the interest of another node, and whether it is one in whole records.
func (o *owner) register(name string, l *link, id uint64, whole bool) {
	if l.down.Load() {
		return // whoever forgets its interests may have been here already
	}
	heavy := uint64(0)
	if whole {
		heavy = id
	}
	all := o.interest[name]
	for i := range all {
		if all[i].link == l {
			all[i].id, all[i].whole = max(all[i].id, id), max(all[i].whole, heavy)
			return
		}
	}
	if all == nil {
		name = strings.Clone(name)
	}
	o.interest[name] = append(all, interest{l, id, heavy})
	o.stats.interests.Add(1)
}

// unregister ends the interests in a name that are to end.
func (o *owner) unregister(name string, end func(interest) bool) {
	all, ok := o.interest[name]
	if !ok {
		return
	}
	left := slices.DeleteFunc(all, end)
	o.stats.interests.Add(int64(len(left) - len(all)))
	if len(left) == 0 {
		delete(o.interest, name)
		return
	}
	o.interest[name] = left
}

// forget serves a kindForget.
func (o *owner) forget(r *request) {
	o.unregister(r.name, func(i interest) bool { return i.link == r.trip.peer && i.id < r.trip.id })
}

// stick holds a request of another node back, while that node has much to take, and
// says whether it did.
func (o *owner) stick(r *request) bool {
	l := r.remote.link
	if stuck, ok := o.stuck[l]; ok {
		o.stuck[l] = append(stuck, r)
		return true
	}
	if o.closing || !r.fetches() || !l.full() {
		return false
	}
	o.stuck[l] = []*request{r}
	return true
}

// unstick has what was held back served next, until that is enough again.
func (o *owner) unstick(l *link) {
	stuck := o.stuck[l]
	if len(stuck) == 0 {
		return
	}
	delete(o.stuck, l)
	o.backlog, o.next = append(stuck, o.backlog[o.next:]...), 0
}

// forgetLink ends what a link that is gone was interested in.
func (o *owner) forgetLink(l *link) {
	o.unstick(l)
	for name := range o.interest {
		o.unregister(name, func(i interest) bool { return i.link == l })
	}
}

// forgetAll ends all interests, with the ownership: they are told to the next owner.
func (o *owner) forgetAll() {
	for name := range o.interest {
		o.unregister(name, func(interest) bool { return true })
	}
}

// tellPeers hands what local subscribers get to interested nodes. r is the request
// that it comes from; its client gets nothing if except is set.
func (o *owner) tellPeers(r *request, except bool, m *protocol.Outbound, s state) {
	all := o.interested(r.name)
	if len(all) == 0 {
		return
	}
	f := frame{kind: frameUpdate, partition: o.partition, epoch: o.epoch, message: m.Message}
	f.known.hash = hash(s.data)
	for _, i := range all {
		f.client = i.link.excluded(r, except)
		f.result = ""
		if m.NeedsWhole() || i.whole != 0 {
			f.result = m.Result
		}
		i.link.emit(&f)
	}
}

// tellPeersDeleted tells interested nodes that the record is gone; they are not
// interested any more.
func (o *owner) tellPeersDeleted(r *request, except bool) {
	all := o.interested(r.name)
	if len(all) == 0 {
		return
	}
	f := frame{kind: frameDeleted, partition: o.partition, epoch: o.epoch, message: protocol.Message{Name: r.name}}
	for _, i := range all {
		f.client = i.link.excluded(r, except)
		i.link.emit(&f)
	}
	o.stats.interests.Add(-int64(len(o.interest[r.name])))
	delete(o.interest, r.name)
}

// excluded is the id, on the node behind the link, of the client that r comes from, if
// it is to get nothing.
func (l *link) excluded(r *request, except bool) uint64 {
	if a, ok := r.client.(*asker); ok && except && a.link == l {
		return a.there
	}
	return 0
}

// resyncMany compares what another node knows of some names, a few at a time: what
// differs may be as large as records.
func (o *owner) resyncMany(r *request) {
	failed := false
	n := min(len(r.names), resyncStep)
	names, knows := r.names[:n], r.trip.knows[:n]
	r.names, r.trip.knows = r.names[n:], r.trip.knows[n:]
	g := newGroup(n+1, func() {
		switch {
		case failed || o.losing:
			r.remote.moved(o.epoch)
			r.free()
		case len(r.names) > 0:
			o.dispatch(o.work, r)
		default:
			r.leave()
		}
	})
	for i, name := range names {
		o.dispatch(o.work, &request{
			kind: kindResync, name: name, group: g,
			trip: &trip{known: knows[i], peer: r.remote.link, id: r.remote.id, astray: func(*request) { failed = true }},
		})
	}
	g.finish()
}

// resync compares, in the turn of the record, what is known elsewhere, or to the
// subscribers here, with what the record is, and tells the difference. From the same
// moment on, another node gets what follows.
func (o *owner) resync(e *entry, r *request) {
	s := e.state
	o.after(e, r, func(err error) {
		defer r.group.finish()
		switch {
		case err != nil:
			o.resyncLater(r)
		case r.trip.peer != nil:
			o.register(r.name, r.trip.peer, r.trip.id, r.trip.known.whole)
			if !r.trip.known.same(s.knowledge()) && !mutantRepair {
				r.trip.peer.emit(&frame{
					kind: frameState, partition: o.partition, id: r.trip.id, epoch: o.epoch, message: protocol.Message{Name: r.name},
					known: knowledge{version: s.version, exists: s.exists, sure: true, data: s.data},
				})
			}
		default:
			o.repaired(r, s)
		}
	})
}

// repaired ends a repair: whoever knows a record otherwise than it is hears of it.
func (o *owner) repaired(r *request, s state) {
	known, unsure := o.repair[r.name]
	if !unsure {
		return // it was deleted, which all have been told
	}
	_, owed := o.owed[r.name]
	delete(o.repair, r.name)
	delete(o.owed, r.name)
	if known.same(s.knowledge()) || mutantRepair {
		return
	}
	o.room.tellState(r.name, known, s)
	switch {
	case !owed:
	case s.exists:
		o.tellPeers(r, false, updateTo(r.name, s), s)
	case !known.sure || known.exists:
		o.tellPeersDeleted(r, false)
	}
}

// updateTo is what tells a client that knows something else what a record is.
func updateTo(name string, s state) *protocol.Outbound {
	return &protocol.Outbound{Message: protocol.Message{
		Topic: protocol.TopicRecord, Action: protocol.RecordUpdate, Has: protocol.HasVersion,
		Name: strings.Clone(name), Version: s.version, Data: s.data,
	}}
}

// resyncLater is for a record that could not be loaded.
func (o *owner) resyncLater(r *request) {
	if r.trip.peer != nil {
		r.trip.peer.emit(&frame{kind: frameState, partition: o.partition, id: r.trip.id, epoch: o.epoch, message: protocol.Message{Name: r.name}})
		return
	}
	o.toMend = append(o.toMend, r.name)
	o.mendLater = true
}

// tellState tells the subscribers here what a record is that they knew otherwise.
func (r *Room) tellState(name string, knew knowledge, s state) {
	switch {
	case s.exists:
		r.subs.Deliver(name, nil, updateTo(name, s))
	case !knew.sure || knew.exists:
		r.tellDeleted(name, 0)
	}
}

// tellDeleted unsubscribes everybody here, and tells all but the client of that id.
func (r *Room) tellDeleted(name string, except uint64) {
	clients := r.subs.RemoveName(name)
	if len(clients) == 0 && !r.subs.Watched() {
		return
	}
	out := &protocol.Outbound{Message: protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordDeleted, Name: strings.Clone(name)}}
	for _, c := range clients {
		if c.ID() != except {
			c.Send(out)
		}
	}
	if r.subs.Watched() {
		r.subs.DeliverWild(name, without{id: except}, out)
	}
	if len(clients) > 0 {
		r.listen.Changed(name)
	}
}

// mend compares what the subscribers of this node knew when it was not the owner, some
// names at a time.
func (o *owner) mend() {
	n := min(len(o.toMend), resyncNames)
	if n == 0 || o.losing {
		return
	}
	names := o.toMend[:n]
	o.toMend = o.toMend[n:]
	g := newGroup(n+1, func() {
		if o.mendLater {
			o.mendLater = false
			o.mendAt = time.Now().Add(resyncPause)
			o.lookAgain.Reset(resyncPause)
			return
		}
		o.mend()
	})
	o.stats.resyncs.Add(1)
	for _, name := range names {
		known, ok := o.repair[name]
		if !ok {
			g.finish()
			continue
		}
		o.dispatch(o.work, &request{kind: kindResync, name: name, group: g, trip: &trip{known: known}})
	}
	g.finish()
}

// knows is what the subscribers here know, when the ownership has ended.
func (o *owner) knows() map[string]*knowing {
	known := make(map[string]*knowing)
	for name := range o.subs.Names {
		if o.room.partition(name) != o.partition {
			continue
		}
		k := &knowing{}
		if old, ok := o.repair[name]; ok {
			k.knowledge = old
		} else if e := o.cache.entries[name]; e != nil {
			if told := o.told(e); told.sure {
				k.knowledge = told.knowledge()
			}
		} else if _, absent := o.absent[name]; absent {
			k.knowledge = state{}.knowledge()
		}
		known[strings.Clone(name)] = k
	}
	return known
}

// told is what subscribers here have been told of a record.
func (o *owner) told(e *entry) recollection {
	if e.loaded && !e.blind && (e.batch == nil || o.fast) {
		return recollection{e.state, true}
	}
	return e.was
}

// remember keeps of an entry that leaves memory what must not be forgotten: that
// subscribers know that there is no such record. Otherwise they would be told, by the
// next owner, that it was deleted.
func (o *owner) remember(e *entry) {
	if told := o.told(e); !told.sure || told.exists || !o.subs.Has(e.name) {
		return
	}
	o.absent[e.name] = struct{}{}
	if len(o.absent) < o.absentSweep {
		return
	}
	for name := range o.absent {
		if !o.subs.Has(name) {
			delete(o.absent, name)
		}
	}
	o.absentSweep = max(absentLeast, 2*len(o.absent))
}
