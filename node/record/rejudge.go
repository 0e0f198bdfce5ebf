package record

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"

	"hadal/auth"
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
	return r.rejudge(ctx, r.listen.Rejudge(rules), r.subs.All)
}

// RejudgeClient is Rejudge for one client, whose user has changed. It is called on its
// reader, which waits meanwhile for the store and for other nodes.
func (r *Room) RejudgeClient(ctx context.Context, rules sub.Rules, c sub.Client) (ended int, err error) {
	only := []sub.Client{c}
	return r.rejudge(ctx, r.listen.RejudgeClient(rules, c), func(yield func(string, []sub.Client) bool) {
		for _, name := range r.subs.NamesOf(c) {
			if !yield(name, only) {
				return
			}
		}
	})
}

// rejudge judges whose subscriptions again: names, each with some of its clients. It
// returns how many have ended, those included that had before.
func (r *Room) rejudge(ctx context.Context, before int, whose iter.Seq2[string, []sub.Client]) (ended int, err error) {
	ended = before
	r.subs.Settle()
	// A subscription that the former rules allowed may wait for a commit, or for the
	// answer of another node; after this it stands, and is met below.
	for _, s := range r.seats() {
		if err := r.settleSubscriptions(ctx, s); err != nil {
			return ended, err
		}
	}
	var evicted atomic.Int64
	parts := make([][]standing, len(r.seats()))
	judge := func(p int) error {
		part := parts[p]
		parts[p] = nil
		n, err := r.judgeAgain(ctx, r.seats()[p], part)
		evicted.Add(int64(n))
		return err
	}
	for name, clients := range whose {
		p := r.partition(name)
		for _, c := range clients {
			if parts[p] = append(parts[p], standing{name, c}); len(parts[p]) == bulkPart {
				if err = judge(p); err != nil {
					return ended + int(evicted.Load()), err
				}
			}
		}
	}
	for p := range parts {
		if len(parts[p]) > 0 && err == nil {
			err = judge(p)
		}
	}
	return ended + int(evicted.Load()), err
}

// standing is a subscription.
type standing struct {
	name   string
	client sub.Client
}

// settleSubscriptions returns when those under way stand or are refused.
func (r *Room) settleSubscriptions(ctx context.Context, s *seat) error {
	if err := s.flush(ctx); err != nil {
		return err
	}
	_, err := r.judgeAgain(ctx, s, nil)
	return err
}

// judgeAgain judges subscriptions of one partition and returns how many it has ended.
// An owner here does so, each in the turn of its record; it comes in a lane of its
// own, so that it has its turn beside the clients' requests.
func (r *Room) judgeAgain(ctx context.Context, s *seat, part []standing) (ended int, err error) {
	o := s.owner.Load()
	if o == nil {
		return r.judgeElsewhere(ctx, part)
	}
	var mu sync.Mutex
	var astray []standing // guarded by mu
	var evicted atomic.Int64
	served := make(chan struct{})
	req := &request{
		kind: kindRejudgeMany, standing: part, group: newGroup(1, func() { close(served) }),
		reply: func(result) { evicted.Add(1) },
		trip: &trip{astray: func(req *request) {
			mu.Lock()
			defer mu.Unlock()
			if req.kind == kindRejudge {
				astray = append(astray, standing{req.name, req.client})
			} else {
				astray = append(astray, req.standing...)
			}
		}},
	}
	switch err := o.mail.put(newLane(), req); err {
	case nil:
	case errMoved:
		return r.judgeElsewhere(ctx, part)
	default:
		return 0, err
	}
	select {
	case <-served:
	case <-ctx.Done():
		return int(evicted.Load()), context.Cause(ctx)
	}
	mu.Lock()
	defer mu.Unlock()
	n, err := r.judgeElsewhere(ctx, astray)
	return int(evicted.Load()) + n, err
}

// judgeElsewhere judges subscriptions whose owner is on another node: by the rules of
// this one, on snapshots from there. A subscription whose record cannot be had, but
// would have to be looked at, ends.
func (r *Room) judgeElsewhere(ctx context.Context, part []standing) (ended int, err error) {
	for _, st := range part {
		if ctx.Err() != nil {
			return ended, context.Cause(ctx)
		}
		if !r.subs.Subscribed(st.name, st.client) || r.stillAllowed(ctx, st) {
			continue
		}
		if ctx.Err() != nil {
			return ended, context.Cause(ctx)
		}
		s := r.seat(st.name)
		s.mu.Lock()
		removed, last := r.subs.Remove(st.name, st.client)
		if last {
			r.listen.Changed(st.name)
			s.mayForget(st.name)
		}
		s.mu.Unlock()
		if removed {
			sub.TellEnded(st.client, protocol.TopicRecord, rejudgedAs, st.name)
			ended++
		}
	}
	return ended, nil
}

// stillAllowed asks the rules about a subscription.
func (r *Room) stillAllowed(ctx context.Context, st standing) bool {
	return r.judged(ctx, st.client.User(), st.name, make(map[string]state))
}

// judged asks the rules whether a user may subscribe to a record. references are states of
// it and of others that are known; what else the rule reads is asked of their owners.
func (r *Room) judged(ctx context.Context, u *auth.User, name string, references map[string]state) bool {
	ctx, cancel := context.WithTimeout(ctx, referenceTime)
	defer cancel()
	fetch := func(name string) bool {
		data, exists, err := r.Snapshot(ctx, name)
		references[name] = state{data: data, exists: exists}
		return err == nil
	}
	if _, known := references[name]; !known && r.rules.ReadsRecord(protocol.RecordSubscribe, name) && !fetch(name) {
		return false
	}
	for {
		own := references[name]
		refused, wanted := r.rules.Judge(u, protocol.RecordSubscribe, name, "", own.data, own.exists,
			func(name string) (string, bool, bool) {
				s, known := references[name]
				return s.data, s.exists, known
			})
		if len(wanted) == 0 {
			return refused == 0
		}
		for _, name := range wanted {
			if !fetch(name) {
				return false
			}
		}
	}
}

// rejudgeMany judges subscriptions, each in the turn of its record. Without any it
// is over when all that was judged before has had its effect.
func (o *owner) rejudgeMany(ctx context.Context, r *request) {
	if len(r.standing) == 0 && !o.fast { // else it had it at once
		o.afterAll(func(error) { r.group.finish() })
		return
	}
	r.group.left.Add(int64(len(r.standing)))
	for _, s := range r.standing {
		o.dispatch(ctx, &request{
			kind: kindRejudge, client: s.client, name: s.name, action: rejudgedAs, group: r.group, reply: r.reply, trip: r.trip,
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
