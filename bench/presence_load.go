package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"hadal/protocol"
)

// presenceScenarios are users that come and go while others watch.
var presenceScenarios = []Scenario{
	{Name: "presence", Text: "50 users come and go, 10 watch everybody; a message is what a watcher is told", Unit: "notice", Clients: 50, new: func() driver { return &presence{} }},
}

const presenceWatchers = 10

// presence has users whose names are stamps. Each waits until all watchers have seen
// it come before it goes, and the other way round.
type presence struct {
	users    []*user
	byStream map[uint32]*user
	watchers int
}

// user is one that comes and goes, under another name each time.
type user struct {
	joins, leaves *stream
	left          atomic.Int64 // when it went last
	due           atomic.Int32 // watchers that have not seen it yet
	seen          chan struct{}
}

func (d *presence) setup(ctx context.Context, l *load) error {
	if l.User != "" || l.Token != "" {
		return errors.New("every user needs a name of its own: a server that lets everybody in, without --user and --token")
	}
	d.byStream = map[uint32]*user{}
	s := l.newSender(nil) // nothing is sent in its name but logins
	s.window = 0
	none := &protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionPing} // never sent
	for range l.clients {
		u := &user{joins: l.newStream(s, none), leaves: l.newStream(s, none), seen: make(chan struct{}, 1)}
		d.users = append(d.users, u)
		d.byStream[u.joins.id], d.byStream[u.leaves.id] = u, u
	}
	watchers, err := l.connect(ctx, "watch", presenceWatchers)
	if err != nil {
		return err
	}
	d.watchers = len(watchers)
	for _, c := range watchers {
		r := l.newReceiver(c)
		for _, u := range d.users {
			r.expect(u.joins, u.leaves)
		}
		m := &protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceSubscribeAll}
		if err := ask(c, m, protocol.PresenceSubscribeAll); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		l.goes(func() error { return r.listen(func(m *protocol.Message) error { return d.notice(r, m) }) })
	}
	return nil
}

// userPrefix is before the stamp in a user's name.
const userPrefix = "user-"

// notice takes what a watcher is told.
func (d *presence) notice(r *receiver, m *protocol.Message) error {
	join := m.Action == protocol.PresencePresenceJoinAll
	if m.Topic != protocol.TopicPresence || !join && m.Action != protocol.PresencePresenceLeaveAll || len(m.Name) <= len(userPrefix) {
		return nil
	}
	st, err := readStamp(m.Name[len(userPrefix):])
	if err != nil {
		return nil // another watcher
	}
	u := d.byStream[st.stream]
	if u == nil {
		return fmt.Errorf("%w: user %q", errStranger, m.Name)
	}
	if !join {
		st.stream, st.due = u.leaves.id, u.left.Load()
	}
	if err := r.got(st); err != nil {
		return err
	}
	if u.due.Add(-1) == 0 {
		u.seen <- struct{}{}
	}
	return nil
}

func (d *presence) drive(ctx context.Context, l *load) error {
	errs := make([]error, len(d.users))
	var wg sync.WaitGroup
	for i, u := range d.users {
		wg.Go(func() {
			for ctx.Err() == nil && errs[i] == nil {
				errs[i] = d.visit(context.WithoutCancel(ctx), l, i, u)
			}
		})
	}
	wg.Wait()
	return firstOf(errs)
}

// visit is one coming and going.
func (d *presence) visit(ctx context.Context, l *load, i int, u *user) error {
	ctx, cancel := context.WithTimeout(ctx, comesIn)
	defer cancel()
	name := make([]byte, stampSize)
	stamp{u.joins.id, u.joins.sent.Load(), clock()}.put(name)
	u.due.Store(int32(d.watchers))
	u.joins.sent.Add(1)
	c, err := l.dial(ctx, i, userPrefix+string(name))
	if err != nil {
		return fmt.Errorf("come: %w", err)
	}
	if err := d.await(ctx, u); err != nil {
		return errors.Join(fmt.Errorf("come: %w", err), c.Close())
	}
	u.due.Store(int32(d.watchers))
	u.left.Store(clock())
	u.leaves.sent.Add(1)
	if err := c.Reset(); err != nil {
		return fmt.Errorf("go: %w", err)
	}
	if err := d.await(ctx, u); err != nil {
		return fmt.Errorf("go: %w", err)
	}
	return nil
}

// await waits until all watchers have been told of a user.
func (d *presence) await(ctx context.Context, u *user) error {
	select {
	case <-u.seen:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d of %d watchers were not told in %v", u.due.Load(), d.watchers, comesIn)
	}
}

func (d *presence) check(context.Context, *load) error { return nil }
