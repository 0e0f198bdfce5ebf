package listen

import (
	"context"
	"slices"
	"time"

	"hadal/cluster"
)

// maxPeerNames is how many names one peer may have this node keep: those that it wants
// and provides, which its clients' own bounds keep far below.
const maxPeerNames = 1 << 22

const (
	// tellBurst is how much a node tells an owner at a time, in bytes, and tellPause how
	// long it then lets the link take it: what a link cannot take ends it.
	tellBurst = 8 << 20
	tellPause = 100 * time.Millisecond
)

// peer is another node, guarded by Registry.mu. It is there while the table says that
// it is alive, or a link says that it can be reached.
type peer struct {
	id     string
	alive  bool
	linked bool
	gen    uint64 // of the link

	told  map[int]*told      // by partition: what it tells this node
	names map[*name]struct{} // those that it wants, provides, or is asked or asks about
	post  []byte             // what waits to be sent, a message

	review bool        // its names have to be looked at, because the peer or what it told changed
	ready  bool        // it can be reached since a moment ago
	joined []patternID // patterns that it has new listeners for
}

// told is how far a peer has come in telling what it wants and provides.
type told struct {
	round  uint32 // rises with each telling
	epoch  uint64 // the ownership that this one is for
	begun  bool   // over the present link
	synced bool   // that was all
}

// usable says that p can be asked: it counts and can be reached.
func (p *peer) usable() bool { return p.alive && p.linked }

// synced says whether p has told everything about a partition to the owner of epoch.
func (p *peer) synced(part int, epoch uint64) bool {
	t := p.told[part]
	return t != nil && t.synced && t.epoch == epoch
}

// peer returns a peer, which may be new.
func (r *Registry) peer(id string) *peer {
	p := r.peers[id]
	if p == nil {
		p = &peer{id: id, told: make(map[int]*told), names: make(map[*name]struct{})}
		r.peers[id] = p
	}
	return p
}

// post puts an entry into the message that goes to p when mu is given back.
func (r *Registry) post(p *peer, e *entry) {
	if !p.linked || len(e.name) > maxName {
		return
	}
	if len(p.post) == 0 {
		p.post = append(p.post, format)
		r.posted = append(r.posted, p)
	}
	p.post = appendEntry(p.post, e)
	if len(p.post) >= full {
		r.send(p)
	}
}

// send sends what waits for p. If it cannot be sent the link has ended, and what is to
// be known is told again over the next one.
func (r *Registry) send(p *peer) {
	if len(p.post) > 1 {
		r.bus.Send(p.id, r.kind, p.post)
	}
	p.post = p.post[:min(1, len(p.post))]
}

// unlock sends what was posted and gives mu back.
func (r *Registry) unlock() {
	if len(r.posted) > 0 {
		for i, p := range r.posted {
			r.send(p)
			p.post = p.post[:0]
			r.posted[i] = nil
		}
		r.posted = r.posted[:0]
	}
	r.mu.Unlock()
}

// postOwner tells the owner of n something, if that is another node which has been
// told, or is being told, what there is; else it will be.
func (r *Registry) postOwner(n *name, e *entry) {
	if r.telling(n.part) {
		r.post(r.parts[n.part].told.peer, e)
	}
}

func (r *Registry) telling(i int) bool {
	part := &r.parts[i]
	t := part.told
	return !part.here && t.peer != nil && t.peer.linked && t.peer.id == part.owner && t.gen == t.peer.gen && t.epoch == part.epoch
}

// postOwners tells all that can be reached, any of which may be an owner.
func (r *Registry) postOwners(e *entry) {
	for _, p := range r.peers {
		r.post(p, e)
	}
}

// peerHandler is the registry as the Bus sees it.
type peerHandler struct{ *Registry }

var _ cluster.Handler = peerHandler{}

// Up implements cluster.Handler.
func (r peerHandler) Up(id string) { r.link(id, true) }

// Down implements cluster.Handler.
func (r peerHandler) Down(id string) { r.link(id, false) }

func (r *Registry) link(id string, up bool) {
	r.mu.Lock()
	defer r.unlock()
	p := r.peer(id)
	p.linked, p.review, p.ready = up, true, up
	if up {
		p.gen++
	}
	p.post = p.post[:0]
	p.joined = nil
	for _, t := range p.told {
		t.begun, t.synced = false, false
	}
	ring(r.peering)
}

// Published implements cluster.Handler: nothing is.
func (peerHandler) Published(string, uint16, []byte) {}

// Hear implements cluster.Handler.
func (r peerHandler) Hear(id string, payload []byte) {
	entries, err := decode(payload)
	if err != nil {
		r.mu.Lock()
		r.count.Invalid++
		r.mu.Unlock()
		r.log.Warn("message of a peer ignored", "peer", id, "err", err)
		return
	}
	for part := range slices.Chunk(entries, chunk) {
		r.mu.Lock()
		if len(r.parts) != max(1, r.table.Partitions()) { // it is known since a moment ago
			r.consult()
			ring(r.peering)
		}
		if p := r.peers[id]; p != nil && p.linked {
			for i := range part {
				r.hear(p, &part[i])
			}
		}
		r.unlock()
	}
}

// hear does what an entry says.
func (r *Registry) hear(p *peer, e *entry) {
	if fieldsOf[e.op]&hasName != 0 {
		e.part = cluster.Partition(cluster.Slot(e.name), len(r.parts))
	}
	if e.part >= len(r.parts) {
		r.count.Invalid++
		return
	}
	switch e.op {
	case opBegin:
		t := p.told[e.part]
		if t == nil {
			t = &told{}
			p.told[e.part] = t
		}
		t.round++
		t.epoch, t.begun, t.synced = e.epoch, true, false
	case opSynced:
		if t := p.told[e.part]; t != nil && t.begun && t.epoch == e.epoch {
			t.synced, p.review = true, true
			ring(r.peering)
		}
	case opWant:
		r.hearWant(p, e.part, e)
	case opUnwant:
		if n := r.names[e.name]; n != nil && n.away != nil {
			r.hearUnwant(p, n)
		}
	case opForget:
		for _, id := range e.ids {
			r.hearForget(p, id)
		}
	case opProviding:
		r.hearProviding(p, e.part, e.name)
	case opLost:
		if n := r.names[e.name]; n != nil && n.away != nil {
			r.unhold(n, p)
			r.loosen(n, p)
			r.judge(n)
		}
	case opJoined:
		for _, id := range e.ids {
			if !slices.Contains(p.joined, id) {
				p.joined = append(p.joined, id)
			}
		}
		ring(r.peering)
	case opAsk:
		r.hearAsk(p, e.part, e)
	case opAnswer:
		r.hearAnswer(p, e.part, e)
	case opCancel:
		r.hearCancel(p, e)
	case opEnd:
		r.hearEnd(p, e.part, e)
	}
}

// providedElsewhere is called by the Set when a peer has gained or lost a name.
func (r *Registry) providedElsewhere(_, name string, has bool) {
	r.mu.Lock()
	defer r.unlock()
	n := r.names[name]
	here := n != nil && n.provider != nil
	if has {
		if r.elsewhere[name]++; r.elsewhere[name] == 1 {
			r.providing.Add(1)
			if !here {
				r.announceName(name, r.act.hasProvider)
			}
		}
	} else if r.elsewhere[name]--; r.elsewhere[name] <= 0 {
		delete(r.elsewhere, name)
		r.providing.Add(-1)
		if !here {
			r.announceName(name, r.act.hasNoProvider)
		}
	}
	if n != nil {
		r.judge(n)
	}
}

// keepPeers follows the table and does what concerns very many names, until ctx ends.
func (r *Registry) keepPeers(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		change := r.table.Changed() // before the table is asked
		r.refresh()
		for r.catchUp(ctx) {
		}
		if next := r.nextRetry(); !next.IsZero() {
			timer.Reset(time.Until(next))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-change:
		case <-timer.C:
		case <-r.peering:
		}
	}
}

// refresh takes over what the table says now.
func (r *Registry) refresh() {
	r.mu.Lock()
	defer r.unlock()
	r.consult()
}

// consult is refresh under mu.
func (r *Registry) consult() {
	r.self = r.table.Self().ID
	alive := make(map[string]bool)
	for _, m := range r.table.Members() {
		if m.ID != r.self && m.Alive {
			alive[m.ID] = true
			r.peer(m.ID)
		}
	}
	for id, p := range r.peers {
		if p.alive != alive[id] {
			p.alive, p.review, p.ready = alive[id], true, alive[id]
		}
	}
	if n := max(1, r.table.Partitions()); n != len(r.parts) {
		// It becomes known once, when the cluster is made or joined.
		r.parts = make([]partition, n)
		for _, p := range r.peers {
			clear(p.told)
		}
		for _, n := range r.names {
			n.part = cluster.Partition(cluster.Slot(n.name), len(r.parts))
		}
	}
	for i := range r.parts {
		part, o := &r.parts[i], r.table.Owner(i)
		if part.owner == o.Owner && part.epoch == o.Epoch && part.here == o.Here {
			continue
		}
		part.owner, part.epoch, part.here, part.changed = o.Owner, o.Epoch, o.Here, true
		part.pending, part.retry = false, time.Time{}
		if o.Here {
			part.since = time.Now()
		}
	}
}

// nextRetry is when the first partition is to be looked at again, or zero.
func (r *Registry) nextRetry() (next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.parts {
		if p := &r.parts[i]; p.pending && !p.retry.IsZero() && (next.IsZero() || p.retry.Before(next)) {
			next = p.retry
		}
	}
	return next
}

// catchUp does what there is to do now and says whether that was anything.
func (r *Registry) catchUp(ctx context.Context) bool {
	did := false
	r.mu.Lock()
	peers := make([]*peer, 0, len(r.peers))
	for _, p := range r.peers {
		if p.review || p.ready || len(p.joined) > 0 {
			peers = append(peers, p)
		}
	}
	r.mu.Unlock()
	for _, p := range peers {
		if ctx.Err() != nil {
			return false
		}
		r.reviewPeer(p)
		did = true
	}
	return r.catchUpParts(ctx) || did
}

// reviewPeer looks at the names that concern a peer, after it or what it told changed.
func (r *Registry) reviewPeer(p *peer) {
	r.mu.Lock()
	review, ready, joined := p.review, p.ready && p.usable(), p.joined
	p.review, p.ready, p.joined = false, false, nil
	var names []*name
	if review {
		names = make([]*name, 0, len(p.names))
		for n := range p.names {
			names = append(names, n)
		}
	}
	var patterns []*pattern
	for _, o := range r.order {
		if slices.Contains(o.peers, p.id) && (ready || slices.Contains(joined, o.id)) {
			patterns = append(patterns, o)
		}
	}
	r.mu.Unlock()
	r.each(names, func(n *name) { r.review(n, p) })
	for _, o := range patterns {
		r.each(r.concerned(o, true), func(n *name) { r.offer(n, p) })
	}
	r.mu.Lock()
	if !p.alive && !p.linked && len(p.names) == 0 && r.peers[p.id] == p {
		delete(r.peers, p.id)
	}
	r.mu.Unlock()
}

// review takes back what p told of n and what it was asked, if it does not hold any more.
func (r *Registry) review(n *name, p *peer) {
	a := n.away
	if a == nil {
		delete(p.names, n)
		return
	}
	t := p.told[n.part]
	old := func(round uint32) bool {
		return !p.alive && !p.linked || t != nil && t.synced && round != t.round
	}
	if slices.ContainsFunc(a.wants, func(w want) bool { return w.peer == p && old(w.round) }) {
		r.unwant(n, p)
	}
	if slices.ContainsFunc(a.holders, func(h holder) bool { return h.peer == p && old(h.round) }) {
		r.unhold(n, p)
	}
	if a.asker.peer == p && (!p.linked || a.asker.gen != p.gen) {
		a.asker = round{}
		r.stop(n)
	}
	if a.asking == p && (!p.usable() || a.question.gen != p.gen) {
		a.asking = nil
		if n.asked == nil {
			r.advance(n)
		}
	}
	r.loosen(n, p)
	r.judge(n)
}

// catchUpParts looks at the names of partitions that have another owner, or can be
// decided on only now, and tells owners what they have to know.
func (r *Registry) catchUpParts(ctx context.Context) bool {
	const changed, again, tell = 1, 2, 4
	r.mu.Lock()
	now := time.Now()
	todo := make(map[int]int)
	for i := range r.parts {
		part := &r.parts[i]
		if part.changed {
			part.changed = false
			todo[i] |= changed
		}
		if part.pending && part.here && (!part.retry.IsZero() && !now.Before(part.retry) || r.complete(i) && r.table.Holds(i)) {
			part.pending, part.retry = false, time.Time{}
			todo[i] |= again
		}
		if p := r.peers[part.owner]; p != nil && p.linked && !part.here && !r.telling(i) {
			part.told = round{p, p.gen, part.epoch}
			r.post(p, &entry{op: opBegin, part: i, epoch: part.epoch})
			todo[i] |= tell
		}
	}
	var names []*name
	if len(todo) > 0 {
		for _, n := range r.names {
			if todo[n.part] != 0 {
				names = append(names, n)
			}
		}
	}
	begun := make(map[int]round)
	for i := range todo {
		begun[i] = r.parts[i].told
	}
	r.unlock()
	if len(todo) == 0 {
		return false
	}
	size := 0
	for names := range slices.Chunk(names, chunk) {
		if size >= tellBurst {
			size = 0
			select {
			case <-ctx.Done():
			case <-time.After(tellPause):
			}
		}
		if ctx.Err() != nil {
			return false
		}
		r.each(names, func(n *name) {
			switch what := todo[n.part]; {
			case what&changed != 0:
				r.renew(n)
			case what&again != 0:
				r.judge(n)
			}
			if todo[n.part]&tell != 0 && r.names[n.name] == n {
				r.tellAll(n)
				size += len(n.name) + len(patternID{})*len(n.matches)
			}
		})
	}
	r.mu.Lock()
	defer r.unlock()
	for i, what := range todo {
		if what&tell != 0 && r.telling(i) && r.parts[i].told == begun[i] {
			r.post(begun[i].peer, &entry{op: opSynced, part: i, epoch: begun[i].epoch})
		}
	}
	return true
}

// renew brings n into line with an ownership that has just changed.
func (r *Registry) renew(n *name) {
	part := &r.parts[n.part]
	if a := n.away; a != nil {
		if p := a.asker.peer; p != nil && a.asker.epoch < part.epoch {
			a.asker = round{}
			r.stop(n)
			r.loosen(n, p)
		}
		if a.asking != nil && a.question.epoch != part.epoch {
			r.stop(n)
		}
		if !part.here {
			r.forgetTold(n)
		}
	}
	if !part.here && (n.away == nil || n.away.asker.peer == nil) {
		r.stop(n)
	}
	r.judge(n)
}

// forgetTold forgets what peers told this node as the owner of n, which it is not, unless
// they know of a later ownership.
func (r *Registry) forgetTold(n *name) {
	a := n.away
	var peers []*peer
	for _, w := range a.wants {
		peers = append(peers, w.peer)
	}
	for _, h := range a.holders {
		peers = append(peers, h.peer)
	}
	for _, p := range peers {
		if t := p.told[n.part]; t != nil && t.epoch > r.parts[n.part].epoch {
			continue
		}
		r.unwant(n, p)
		r.unhold(n, p)
		r.loosen(n, p)
	}
}

// tellAll tells the owner of n, which is another node, what this one wants and provides.
func (r *Registry) tellAll(n *name) {
	if n.mine && !r.subs.Has(n.name) {
		r.unsubscribed(n)
	}
	if n.mine {
		r.tellMatches(n, n.matches)
	}
	if n.provider != nil {
		r.postOwner(n, &entry{op: opProviding, name: n.name})
	}
}
