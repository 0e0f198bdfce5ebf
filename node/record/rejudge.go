package record

import (
	"context"
	"sync/atomic"

	"hadal/node/sub"
	"hadal/protocol"
)

// This file ends what new rules do not allow any more. A subscription is judged where
// it was at first: by the owner, in the turn of its record and, where the rule reads
// it, on its state.

// rejudgedAs is what clients that lose a subscription are told they had asked for:
// it is how the official client subscribes, and of what it may have been the action
// that makes it raise an error (spec 14 §4).
const rejudgedAs = protocol.RecordSubscribeCreateAndRead

// Rejudge ends the subscriptions and the listening that rules, which are in force, do
// not allow any more, and tells the clients. It returns how much that was, and an
// error when not everything could be judged, because the room or ctx has ended.
func (r *Room) Rejudge(ctx context.Context, rules sub.Rules) (ended int, err error) {
	ended = r.listen.Rejudge(rules)
	// A subscription that the former rules allowed may wait for a commit; after this
	// it stands, and is met below.
	if err := r.judgeAgain(ctx, &request{kind: kindSettle}); err != nil {
		return ended, err
	}
	var evicted atomic.Int64
	count := func(result) { evicted.Add(1) }
	var reqs []*request
	for name, clients := range r.owner.subs.All {
		for _, c := range clients {
			reqs = append(reqs, &request{kind: kindRejudge, client: c, name: name, action: rejudgedAs, reply: count})
			if len(reqs) == bulkPart {
				if err = r.judgeAgain(ctx, reqs...); err != nil {
					return ended + int(evicted.Load()), err
				}
				reqs = nil
			}
		}
	}
	err = r.judgeAgain(ctx, reqs...)
	return ended + int(evicted.Load()), err
}

// judgeAgain has the owner serve requests of a rejudging, in a lane of their own: they
// have their turns beside those of the clients.
func (r *Room) judgeAgain(ctx context.Context, reqs ...*request) error {
	if len(reqs) == 0 {
		return nil
	}
	served := make(chan struct{})
	g := &group{left: len(reqs), done: func() { close(served) }}
	for _, req := range reqs {
		req.group = g
	}
	if err := r.owner.mail.put(newLane(), reqs...); err != nil {
		return err
	}
	select {
	case <-served:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settled serves kindSettle: what was judged so far has had its effect by then.
func (o *owner) settled(r *request) {
	if o.fast { // it has it at once
		r.group.finish()
		return
	}
	o.afterAll(func(error) { r.group.finish() })
}

// rejudge judges a subscription that stands, if it still does.
func (o *owner) rejudge(e *entry, r *request) {
	s := state{}
	switch {
	case !o.subs.Subscribed(r.name, r.client):
		r.group.finish()
		return
	case e != nil:
		s = e.state
	case o.rules.ReadsRecord(protocol.RecordSubscribe, r.name): // it could not be loaded
		o.deny(e, r, protocol.RecordMessagePermissionError)
		return
	}
	if refusal := o.judge(r, protocol.RecordSubscribe, "", s); refusal != 0 {
		o.deny(e, r, refusal)
		return
	}
	r.group.finish()
}

// evict ends a subscription that the rules refuse, or which they cannot judge. It is
// what deny does with a kindRejudge.
func (o *owner) evict(r *request) {
	removed, last := o.subs.Remove(r.name, r.client)
	if !removed {
		return
	}
	if last {
		o.listen.Changed(r.name)
	}
	sub.TellEnded(r.client, protocol.TopicRecord, r.action, r.name)
	r.reply(result{})
}
