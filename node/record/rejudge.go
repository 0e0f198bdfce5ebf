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
	if err := r.judgeAgain(ctx, &request{}); err != nil {
		return ended, err
	}
	var evicted atomic.Int64
	part := func() *request {
		return &request{reply: func(result) { evicted.Add(1) }}
	}
	req := part()
	for name, clients := range r.owner.subs.All {
		for _, c := range clients {
			req.standing = append(req.standing, standing{name, c})
			if len(req.standing) == bulkPart {
				if err = r.judgeAgain(ctx, req); err != nil {
					return ended + int(evicted.Load()), err
				}
				req = part()
			}
		}
	}
	if len(req.standing) > 0 {
		err = r.judgeAgain(ctx, req)
	}
	return ended + int(evicted.Load()), err
}

// standing is a subscription.
type standing struct {
	name   string
	client sub.Client
}

// judgeAgain has the owner serve a part of a rejudging. It comes in a lane of its own,
// so that it has its turn beside the clients' requests.
func (r *Room) judgeAgain(ctx context.Context, req *request) error {
	served := make(chan struct{})
	req.kind, req.group = kindRejudgeMany, &group{left: 1, done: func() { close(served) }}
	if err := r.owner.mail.put(newLane(), req); err != nil {
		return err
	}
	select {
	case <-served:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// rejudgeMany judges subscriptions, each in the turn of its record. Without any it
// is over when all that was judged before has had its effect.
func (o *owner) rejudgeMany(ctx context.Context, r *request) {
	if len(r.standing) == 0 && !o.fast { // else it had it at once
		o.afterAll(func(error) { r.group.finish() })
		return
	}
	r.group.left += len(r.standing)
	for _, s := range r.standing {
		o.dispatch(ctx, &request{
			kind: kindRejudge, client: s.client, name: s.name, action: rejudgedAs, group: r.group, reply: r.reply,
		})
	}
	r.group.finish()
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
