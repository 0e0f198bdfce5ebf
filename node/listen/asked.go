package listen

import "hadal/protocol"

// hearAsk looks for a provider among this node's listeners, on behalf of an owner.
func (r *Registry) hearAsk(p *peer, part int, e *entry) {
	if protocol.Reserved(e.name) || e.epoch < r.parts[part].epoch {
		return
	}
	n := r.name(e.name)
	a := n.others()
	if a.asker.peer != nil {
		if a.asker.epoch > e.epoch {
			return
		}
		old := a.asker.peer
		a.asker = round{}
		r.loosen(n, old)
	}
	r.stop(n)
	a.asker, a.number, a.upTo = round{p, p.gen, e.epoch}, e.search, r.joined
	p.names[n] = struct{}{}
	if l := n.provider; l != nil {
		if !l.gone {
			r.reply(n, true)
			r.tidy(n)
			return
		}
		r.provideNoMore(n)
		r.announce(n, r.act.hasNoProvider)
	}
	for _, id := range e.ids {
		if o := r.byID[id]; o != nil {
			for _, l := range o.listeners {
				if l.joined > e.number {
					n.candidates = append(n.candidates, l)
				}
			}
		}
	}
	r.begin(n)
}

// reply answers who asked about n.
func (r *Registry) reply(n *name, provided bool) {
	a := n.away
	to := a.asker
	a.asker = round{}
	if to.peer.gen == to.gen {
		r.post(to.peer, &entry{op: opAnswer, epoch: to.epoch, search: a.number, number: a.upTo, name: n.name, flag: provided})
	}
	r.loosen(n, to.peer)
}

// tellProvided tells other nodes that n has got a provider here.
func (r *Registry) tellProvided(n *name) {
	var asker *peer
	if a := n.away; a != nil && a.asker.peer != nil {
		asker = a.asker.peer
		r.reply(n, true)
	}
	part := &r.parts[n.part]
	switch {
	case part.here:
		if len(r.peers) > 0 {
			r.judge(n)
		}
	case asker == nil || asker.id != part.owner:
		r.postOwner(n, &entry{op: opProviding, name: n.name})
	}
}

// hearCancel ends a question.
func (r *Registry) hearCancel(p *peer, e *entry) {
	n := r.names[e.name]
	if n == nil || n.away == nil || n.away.asker.peer != p || n.away.number != e.search {
		return
	}
	n.away.asker = round{}
	r.stop(n)
	r.loosen(n, p)
	r.tidy(n)
}

// hearEnd ends the role of the provider of a name on behalf of its owner, which is told
// how it ended.
func (r *Registry) hearEnd(p *peer, part int, e *entry) {
	if e.epoch < r.parts[part].epoch {
		return
	}
	answer := &entry{op: opLost, name: e.name}
	n := r.names[e.name]
	if n != nil && n.provider != nil {
		if e.flag || !r.subs.Has(n.name) {
			r.surrender(n)
			r.tidy(n)
		} else { // the owner is about to hear that it is wanted
			answer.op = opProviding
		}
	}
	r.post(p, answer)
}

// surrender ends the role of the provider of n on this node, since there is another.
func (r *Registry) surrender(n *name) {
	l := n.provider
	r.count.Ended++
	r.provideNoMore(n)
	if !l.gone {
		r.tell(l, r.act.removed, n.name)
	}
	r.announce(n, r.act.hasNoProvider)
}
