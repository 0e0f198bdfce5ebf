package listen

import (
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// settle is how long a new owner that is not complete waits before it searches.
	settle = time.Second
	// leaseRetry is how long an owner without its lease waits before it looks again.
	leaseRetry = 200 * time.Millisecond
)

// partition is what this node knows of one, guarded by Registry.mu.
type partition struct {
	owner string
	epoch uint64
	here  bool      // this node is the owner
	since time.Time // when it became so, under this epoch

	changed bool      // its names have to be looked at, because the ownership is another
	pending bool      // some name could not be decided on, because this node did not know enough
	retry   time.Time // when to try again whatever is known; zero for not at all

	told round // what the owner was told
}

// round is one telling of what this node wants and provides in a partition.
type round struct {
	peer  *peer
	gen   uint64 // of the link
	epoch uint64
}

// away is what other nodes have to do with a name, guarded by Registry.mu.
type away struct {
	// The owner's.
	wants    []want
	holders  []holder
	nodes    []*peer // those with listeners, in the present or last search
	nextNode int     // the first of them that has not had its turn
	tried    []tried // what those said that provide nothing
	asking   *peer   // whose answer is awaited
	question round   // peer is not set
	search   uint64  // the number of the question

	// Of a node that was asked.
	asker  round  // who asked; peer is nil if nobody waits for an answer
	number uint64 // of the asker's search
	upTo   uint64 // the last listener that is or was a candidate
}

// want is what one peer told of a name it wants.
type want struct {
	peer  *peer
	round uint32
	ids   []patternID
}

// holder is a peer that told that it provides a name.
type holder struct {
	peer   *peer
	round  uint32
	ending bool // it was told to end it
}

// tried is up to which of its listeners a peer has asked in vain.
type tried struct {
	peer *peer
	gen  uint64
	upTo uint64
}

func (a *away) empty() bool {
	return a == nil || len(a.wants) == 0 && len(a.holders) == 0 && a.asking == nil && a.asker.peer == nil
}

// away returns what others have to do with n, to change it.
func (n *name) others() *away {
	if n.away == nil {
		n.away = &away{}
	}
	return n.away
}

// mayJudge says whether this node may decide about n as its owner at this moment.
func (r *Registry) mayJudge(n *name) bool {
	if !r.parts[n.part].here {
		return false
	}
	if !r.table.Holds(n.part) {
		r.postpone(n.part, time.Now().Add(leaseRetry))
		return false
	}
	return true
}

// maySearch says whether this node, the owner, knows that nobody provides n whose
// provider it does not know, or has waited long enough.
func (r *Registry) maySearch(n *name) bool {
	part := &r.parts[n.part]
	if r.complete(n.part) {
		return true
	}
	if until := part.since.Add(settle); time.Now().Before(until) {
		r.postpone(n.part, until)
		return false
	}
	return true
}

// complete says whether every node that is alive has told what it wants and provides.
func (r *Registry) complete(part int) bool {
	for _, p := range r.peers {
		if p.alive && !p.synced(part, r.parts[part].epoch) {
			return false
		}
	}
	return true
}

// postpone has the names of a partition judged again when this node is complete, or
// at retry.
func (r *Registry) postpone(part int, retry time.Time) {
	p := &r.parts[part]
	p.pending = true
	if p.retry.IsZero() || retry.Before(p.retry) {
		p.retry = retry
		ring(r.peering)
	}
}

// wanted says whether anybody in the cluster hears n, as far as this node was told.
func (r *Registry) wanted(n *name) bool {
	if r.subs.Has(n.name) {
		return true
	}
	return n.away != nil && slices.ContainsFunc(n.away.wants, func(w want) bool { return w.peer.alive })
}

// holders are the peers that provide n. What a peer told is the truth of it; while it
// has not told everything, what it has in the Set counts.
func (r *Registry) holders(n *name) []*peer {
	var all []*peer
	if n.away != nil {
		for _, h := range n.away.holders {
			if h.peer.alive {
				all = append(all, h.peer)
			}
		}
	}
	if len(r.elsewhere) == 0 || r.elsewhere[n.name] == 0 {
		return all
	}
	for _, id := range r.providedSet.Peers(n.name) {
		if p := r.peers[id]; p != nil && p.alive && !p.synced(n.part, r.parts[n.part].epoch) && !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// provided says whether anybody provides n, as far as this node, the owner, knows.
func (r *Registry) provided(n *name) bool { return n.provider != nil || len(r.holders(n)) > 0 }

// judge brings about what shall be, from what is: it begins and ends searches and
// roles of providers. On a node that does not own n there is nothing to decide.
func (r *Registry) judge(n *name) {
	if !r.parts[n.part].here {
		r.tidy(n)
		return
	}
	if !r.mayJudge(n) {
		return
	}
	if !r.wanted(n) {
		r.unwanted(n)
		return
	}
	holders := r.holders(n)
	if n.provider == nil && len(holders) == 0 {
		if !n.searching() && !r.resting(n) {
			r.search(n)
		}
		return
	}
	r.stop(n)
	var keep string
	if n.provider != nil {
		keep = r.self
	}
	for _, p := range holders {
		if !n.ending(p) && (keep == "" || p.id < keep) {
			keep = p.id
		}
	}
	if n.provider != nil && keep != r.self {
		r.surrender(n)
	}
	for _, p := range holders {
		if p.id != keep && r.end(n, p, true) {
			r.count.Ended++
		}
	}
}

// ending says whether p was told to end its provider of n. It counts until it says
// that it has, so that there are not two for a moment.
func (n *name) ending(p *peer) bool {
	return n.away != nil && slices.ContainsFunc(n.away.holders, func(h holder) bool { return h.peer == p && h.ending })
}

// end tells p to end its provider of n, if it has told that there is one and was not
// told already, and says whether it was.
func (r *Registry) end(n *name, p *peer, wanted bool) bool {
	i := slices.IndexFunc(n.others().holders, func(h holder) bool { return h.peer == p && !h.ending })
	if i < 0 {
		return false
	}
	n.away.holders[i].ending = true
	r.post(p, &entry{op: opEnd, epoch: r.parts[n.part].epoch, name: n.name, flag: wanted})
	return true
}

// unwanted ends what is done for n, which nobody hears, and says whether it did.
func (r *Registry) unwanted(n *name) bool {
	if !r.mayJudge(n) {
		return false
	}
	if !r.complete(n.part) {
		r.parts[n.part].pending = true
		return false
	}
	if a := n.away; a != nil {
		for _, h := range a.holders {
			r.end(n, h.peer, false)
		}
		r.cancel(n)
	}
	if n.asked != nil && !n.waiting {
		// Left to answer, because it cannot be told to forget the question. If somebody
		// hears n again by then, the search goes on.
		return false
	}
	r.drop(n)
	return true
}

// patternsOf are the patterns that n matches, by what this node found and what others
// told, and that anybody listens to.
func (r *Registry) patternsOf(n *name) []*pattern {
	all := slices.Clone(n.matches)
	if n.away == nil {
		return all
	}
	for _, w := range n.away.wants {
		for _, id := range w.ids {
			if p := r.byID[id]; p != nil && !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
	}
	return all
}

// searchAway adds to a search that begins what this node does not know by itself:
// its listeners for patterns that others match, and the nodes that can be asked.
func (r *Registry) searchAway(n *name) {
	var nodes []*peer
	for i, p := range r.patternsOf(n) {
		if i >= len(n.matches) {
			n.candidates = append(n.candidates, p.listeners...)
		}
		for _, id := range p.peers {
			if o := r.peers[id]; o != nil && o.usable() && !slices.Contains(nodes, o) {
				nodes = append(nodes, o)
			}
		}
	}
	if len(nodes) == 0 && n.away == nil {
		return
	}
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	a := n.others()
	a.nodes, a.nextNode, a.tried = nodes, 0, nil
}

// goesOn says whether there is a reason to ask the next candidate for n. If there is
// none, it does what is to be done instead.
func (r *Registry) goesOn(n *name) bool {
	switch {
	case n.away != nil && n.away.asker.peer != nil:
		return true
	case n.over || !r.parts[n.part].here:
		n.over = false
		n.candidates, n.next = nil, 0
		r.judge(n)
		return false
	case !r.wanted(n):
		r.unwanted(n)
		return false
	case !r.mayJudge(n):
		return false
	}
	return !r.provided(n)
}

// advanceAway answers who asked, or asks the next node, and says whether it did.
func (r *Registry) advanceAway(n *name) bool {
	a := n.away
	if a.asker.peer != nil {
		n.candidates, n.next = nil, 0
		r.reply(n, false)
		r.judge(n)
		return true
	}
	for a.nextNode < len(a.nodes) {
		p := a.nodes[a.nextNode]
		a.nextNode++
		ids := r.idsFor(n, p)
		if !p.usable() || len(ids) == 0 {
			continue
		}
		r.searches++
		a.asking, a.search, a.question = p, r.searches, round{gen: p.gen, epoch: r.parts[n.part].epoch}
		p.names[n] = struct{}{}
		e := entry{op: opAsk, epoch: a.question.epoch, search: a.search, name: n.name, ids: ids}
		if i := slices.IndexFunc(a.tried, func(t tried) bool { return t.peer == p && t.gen == p.gen }); i >= 0 {
			e.number = a.tried[i].upTo
		}
		r.count.Referred++
		r.post(p, &e)
		return true
	}
	return false
}

// idsFor are the patterns of p that n matches.
func (r *Registry) idsFor(n *name, p *peer) []patternID {
	var ids []patternID
	for _, o := range r.patternsOf(n) {
		if slices.Contains(o.peers, p.id) {
			ids = append(ids, o.id)
		}
	}
	if len(ids) > maxIDs { // it would take hours to ask all of them
		ids = ids[:maxIDs]
	}
	return ids
}

// stopAway ends what other nodes do for a search.
func (r *Registry) stopAway(n *name) {
	a := n.away
	a.nodes, a.nextNode, a.tried = nil, 0, nil
	r.cancel(n)
}

// cancel ends the question to another node that is under way, if there is one. If the
// node has a provider by now its answer says so, and is judged as it comes: so
// questions and answers that cross end nothing that they do not mean.
func (r *Registry) cancel(n *name) {
	a := n.away
	if p := a.asking; p != nil {
		a.asking = nil
		r.post(p, &entry{op: opCancel, search: a.search, name: n.name})
		r.loosen(n, p)
	}
}

// offer has a node asked about n that has listeners which it had not before, as join
// does with a listener.
func (r *Registry) offer(n *name, p *peer) {
	if p == nil || !p.usable() || !r.parts[n.part].here || r.provided(n) {
		return
	}
	switch a := n.away; {
	case !n.searching() && !r.resting(n):
		r.judge(n)
	case a != nil && slices.Contains(a.nodes[a.nextNode:], p):
	case n.searching():
		a = n.others()
		a.nodes = append(a.nodes, p)
	default:
		a = n.others()
		a.nodes, a.nextNode = append(a.nodes[a.nextNode:], p), 0
		n.next = len(n.candidates)
		n.failedAt = time.Time{}
		r.advance(n)
	}
}

// offerAll has everybody asked about n who listens to p, which n did not match before
// as far as this node knew.
func (r *Registry) offerAll(n *name, p *pattern) {
	for _, l := range p.listeners {
		r.join(n, l)
	}
	for _, id := range p.peers {
		r.offer(n, r.peers[id])
	}
}

// hearAnswer takes the end of a question. Whatever the question, a provider is one.
func (r *Registry) hearAnswer(p *peer, part int, e *entry) {
	n := r.names[e.name]
	if e.flag && r.parts[part].here {
		n = r.name(e.name)
		var round uint32
		if t := p.told[part]; t != nil {
			round = t.round
		}
		r.hold(n, p, round)
	}
	if n == nil || n.away == nil {
		return
	}
	a := n.away
	due := a.asking == p && a.search == e.search && a.question.epoch == e.epoch
	if due {
		a.asking = nil
	}
	switch {
	case e.flag:
		r.judge(n)
	case due:
		a.tried = slices.DeleteFunc(a.tried, func(t tried) bool { return t.peer == p })
		a.tried = append(a.tried, tried{p, p.gen, e.number})
		if n.asked == nil {
			r.advance(n)
		}
	}
	r.loosen(n, p)
	r.tidy(n)
}
