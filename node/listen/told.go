package listen

import (
	"slices"

	"hadal/protocol"
)

// hearWant notes that a peer wants n, which matches ids.
func (r *Registry) hearWant(p *peer, part int, e *entry) {
	t := p.told[part]
	if !r.minds(p, part) || protocol.Reserved(e.name) {
		return
	}
	if len(p.names) >= maxPeerNames {
		r.count.Invalid++
		return
	}
	n := r.name(e.name)
	a := n.others()
	i := slices.IndexFunc(a.wants, func(w want) bool { return w.peer == p })
	if i < 0 {
		i = len(a.wants)
		a.wants = append(a.wants, want{peer: p, round: t.round})
		p.names[n] = struct{}{}
	}
	w := &a.wants[i]
	var before []patternID
	if w.round != t.round { // told anew, from the beginning
		before, w.ids, w.round = w.ids, nil, t.round
	}
	var fresh []patternID
	for _, id := range e.ids {
		if slices.Contains(w.ids, id) {
			continue
		}
		w.ids = append(w.ids, id)
		r.vote(n, id, 1)
		if !slices.Contains(before, id) {
			fresh = append(fresh, id)
		}
	}
	for _, id := range before {
		r.vote(n, id, -1)
	}
	if !n.searching() && !r.resting(n) {
		r.judge(n)
		return
	}
	for _, id := range fresh {
		if o := r.byID[id]; o != nil {
			r.offerAll(n, o)
		}
	}
}

// minds says whether what the peer tells of a partition is this node's business: it
// owns it, or the peer knows of a later owner, who may be this node.
func (r *Registry) minds(p *peer, part int) bool {
	t := p.told[part]
	return t != nil && t.begun && (r.parts[part].here || t.epoch > r.parts[part].epoch)
}

func (r *Registry) hearUnwant(p *peer, n *name) {
	r.unwant(n, p)
	r.loosen(n, p)
	r.judge(n)
}

// hearForget takes a pattern out of all that the peer wants.
func (r *Registry) hearForget(p *peer, id patternID) {
	for n := range r.votes[id] {
		for i := range n.away.wants {
			w := &n.away.wants[i]
			if w.peer != p {
				continue
			}
			if j := slices.Index(w.ids, id); j >= 0 {
				w.ids = slices.Delete(w.ids, j, j+1)
				r.vote(n, id, -1)
			}
		}
	}
}

func (r *Registry) hearProviding(p *peer, part int, text string) {
	t := p.told[part]
	if !r.minds(p, part) || protocol.Reserved(text) {
		return
	}
	if len(p.names) >= maxPeerNames {
		r.count.Invalid++
		return
	}
	n := r.name(text)
	r.hold(n, p, t.round)
	r.judge(n)
}

// hold notes that p provides n.
func (r *Registry) hold(n *name, p *peer, round uint32) {
	a := n.others()
	p.names[n] = struct{}{}
	if i := slices.IndexFunc(a.holders, func(h holder) bool { return h.peer == p }); i >= 0 {
		a.holders[i] = holder{peer: p, round: round}
		return
	}
	a.holders = append(a.holders, holder{peer: p, round: round})
}

// vote counts that one peer more or less told that n matches a pattern.
func (r *Registry) vote(n *name, id patternID, by int) {
	names := r.votes[id]
	if names == nil {
		names = make(map[*name]int)
		r.votes[id] = names
	}
	if names[n] += by; names[n] > 0 {
		return
	}
	delete(names, n)
	if len(names) == 0 {
		delete(r.votes, id)
	}
}

// unwant forgets that p wants n.
func (r *Registry) unwant(n *name, p *peer) {
	if n.away == nil {
		return
	}
	n.away.wants = slices.DeleteFunc(n.away.wants, func(w want) bool {
		if w.peer != p {
			return false
		}
		for _, id := range w.ids {
			r.vote(n, id, -1)
		}
		return true
	})
}

// unhold forgets that p provides n.
func (r *Registry) unhold(n *name, p *peer) {
	n.away.holders = slices.DeleteFunc(n.away.holders, func(h holder) bool { return h.peer == p })
}

// loosen takes n out of what concerns p, if nothing is left.
func (r *Registry) loosen(n *name, p *peer) {
	a := n.away
	if a.asking == p || a.asker.peer == p ||
		slices.ContainsFunc(a.wants, func(w want) bool { return w.peer == p }) ||
		slices.ContainsFunc(a.holders, func(h holder) bool { return h.peer == p }) {
		return
	}
	delete(p.names, n)
}
