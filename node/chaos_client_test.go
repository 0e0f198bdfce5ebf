package node_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"hadal/auth"
	"hadal/cluster/clustertest"
	"hadal/node/sub"
	"hadal/protocol"
)

// conn is one connection of a chaosClient to one node, as the rooms see it. What they
// send waits in its inbox for the client, whose goroutine alone does the rest.
type conn struct {
	id   uint64
	name string // in the history
	at   *process
	user *auth.User
	bell chan struct{}

	mu    sync.Mutex
	gone  bool               // guarded by mu
	inbox []protocol.Message // guarded by mu
}

var _ sub.Client = (*conn)(nil)

func (c *conn) ID() uint64       { return c.id }
func (c *conn) User() *auth.User { return c.user }
func (c *conn) Pace()            {}
func (c *conn) Reserve(int) bool { return true }
func (c *conn) Release(int)      {}

func (c *conn) Gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// leave ends the connection, once.
func (c *conn) leave() (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first = !c.gone
	c.gone = true
	if first {
		c.at.chaos.note(clustertest.Event{What: clustertest.Closed, Client: c.name, Node: c.at.node.Name()})
	}
	return first
}

func (c *conn) Answer(m *protocol.Message)        { c.take(m) }
func (c *conn) AnswerShared(o *protocol.Outbound) { c.take(&o.Message) }
func (c *conn) Send(o *protocol.Outbound)         { c.take(&o.Message) }

// take copies a message, which may be made of bytes that change afterwards.
func (c *conn) take(m *protocol.Message) {
	got := *m
	for _, s := range []*string{&got.Name, &got.Data, &got.Path, &got.CorrelationID, &got.Subscription} {
		*s = strings.Clone(*s)
	}
	got.Names = slices.Clone(m.Names)
	for i := range got.Names {
		got.Names[i] = strings.Clone(got.Names[i])
	}
	got.Versions = slices.Clone(m.Versions)
	c.at.node.Tell(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.gone {
			return
		}
		c.inbox = append(c.inbox, got)
		select {
		case c.bell <- struct{}{}:
		default:
		}
	})
}

func (c *conn) mail() []protocol.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.inbox
	c.inbox = nil
	return got
}

// chaosClient is a person at a keyboard: it connects to some node, does this and that,
// and connects again when the connection ends. Its goroutine alone uses it.
type chaosClient struct {
	chaos  *chaos
	number int
	r      *rand.Rand
	opened int // connections so far

	*session
}

// session is what a client knows on one connection.
type session struct {
	c       *conn
	subs    map[string]bool   // events subscribed to
	events  uint64            // emitted
	provide map[string]bool   // rpc names
	pending map[string]asking // requests for records that are answered by name
	writes  map[string]asking // and by correlation id
	known   map[string]int32  // versions of records, as far as it knows
	follows map[string]bool   // records subscribed to
	ended   map[string]bool   // and not any more, until that is acknowledged
	wants   map[string]bool   // names subscribed to that others provide
	serves  map[string]bool   // names that it provides
	listens map[string]bool   // patterns
	asked   map[string]int    // number of the latest question whether it provides a name
	later   []later
}

// asking is a request that has not been answered.
type asking struct {
	id   uint64
	name string
	note string
}

// later is something that a client will do.
type later struct {
	at time.Time
	do func(ctx context.Context)
}

// run is the client's life, until ctx ends.
func (u *chaosClient) run(ctx context.Context) {
	for ctx.Err() == nil {
		if u.connect(ctx) {
			u.live(ctx)
			u.disconnect(ctx)
		}
		if u.pause(ctx, 20*time.Millisecond, 500*time.Millisecond) != nil {
			return
		}
	}
}

func (u *chaosClient) who() string { return "client " + strconv.Itoa(u.number) }

// pause waits between two times.
func (u *chaosClient) pause(ctx context.Context, min, max time.Duration) error {
	return u.chaos.net.Sleep(ctx, u.who(), min+time.Duration(u.r.Int64N(int64(max-min))))
}

func (u *chaosClient) note(what clustertest.What, e clustertest.Event) {
	e.What, e.Client = what, u.c.name
	u.chaos.note(e)
}

// connect logs in at a node that runs.
func (u *chaosClient) connect(ctx context.Context) bool {
	at := u.chaos.pick(u.r)
	if at == nil || at.node.Enter(ctx, u.who()) != nil {
		return false
	}
	u.opened++
	c := &conn{
		id: u.chaos.ids.Add(1), name: fmt.Sprintf("c%d.%d", u.number, u.opened), at: at,
		user: &auth.User{ID: fmt.Sprintf("user%d", u.number/2)}, bell: make(chan struct{}, 1),
	}
	if !at.add(c) {
		return false
	}
	u.session = &session{
		c: c, subs: make(map[string]bool), provide: make(map[string]bool), pending: make(map[string]asking), writes: make(map[string]asking),
		known: make(map[string]int32), follows: make(map[string]bool), ended: make(map[string]bool), wants: make(map[string]bool), serves: make(map[string]bool), listens: make(map[string]bool), asked: make(map[string]int),
	}
	u.note(clustertest.Opened, clustertest.Event{Node: at.node.Name(), Name: c.user.ID})
	at.login(c)
	u.greet(ctx)
	return true
}

// disconnect closes the connection, if the node has not ended it.
func (u *chaosClient) disconnect(ctx context.Context) {
	if !u.c.leave() || u.c.at.node.Enter(ctx, u.who()) != nil {
		return
	}
	u.c.at.closed(u.c)
}

// live works on a connection until it or ctx ends or the client has enough of it.
func (u *chaosClient) live(ctx context.Context) {
	think := time.NewTimer(u.think())
	defer think.Stop()
	for !u.c.Gone() {
		var next <-chan time.Time
		if len(u.later) > 0 {
			t := time.NewTimer(time.Until(u.later[0].at))
			next = t.C
			defer t.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-u.c.at.node.Dead():
			return
		case <-u.c.bell:
			for _, m := range u.c.mail() {
				u.hear(ctx, &m)
			}
		case <-next:
			l := u.later[0]
			u.later = u.later[1:]
			l.do(ctx)
		case <-think.C:
			think.Reset(u.think())
			if u.chaos.resting.Load() {
				continue
			}
			if u.r.IntN(150) == 0 && !u.chaos.quiet.Load() {
				return
			}
			u.act(ctx)
		}
	}
}

// think is how long the client does nothing.
func (u *chaosClient) think() time.Duration {
	return time.Duration(20+u.r.IntN(160)) * time.Millisecond
}

// soon does something after at most max.
func (u *chaosClient) soon(max time.Duration, do func(ctx context.Context)) {
	u.later = append(u.later, later{time.Now().Add(time.Duration(1 + u.r.Int64N(int64(max)))), do})
	slices.SortStableFunc(u.later, func(a, b later) int { return a.at.Compare(b.at) })
}

// say brings a message to the node. before is called when it is on its way for sure.
func (u *chaosClient) say(ctx context.Context, m *protocol.Message, before func()) bool {
	if u.c.Gone() {
		return false
	}
	if before != nil {
		before()
	}
	if u.c.at.node.Enter(ctx, u.who()) != nil || u.c.Gone() {
		return false
	}
	u.chaos.ops.Add(1)
	u.c.at.handle(u.c, m)
	return true
}

// act does one thing of what the rooms that there are can do.
func (u *chaosClient) act(ctx context.Context) {
	acts := u.chaos.acts
	total := 0
	for _, a := range acts {
		total += a.weight
	}
	n := u.r.IntN(total)
	for _, a := range acts {
		if n -= a.weight; n < 0 {
			a.do(u, ctx)
			return
		}
	}
}

// greet is what a client does first.
func (u *chaosClient) greet(ctx context.Context) {
	for _, g := range u.chaos.greets {
		g(u, ctx)
	}
}

// hear takes what the node has sent.
func (u *chaosClient) hear(ctx context.Context, m *protocol.Message) {
	if h := u.chaos.hears[m.Topic]; h != nil {
		h(u, ctx, m)
	}
}
