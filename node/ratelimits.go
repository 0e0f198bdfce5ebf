package node

import (
	"container/list"
	"context"
	"encoding/json"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hadal/auth"
	"hadal/node/rate"
	"hadal/node/sub"
	"hadal/protocol"
)

const (
	// countedActions is above every action of the protocol.
	countedActions = 128
	// rateTick is how exact the clock of the rate limits is: to read the real one for
	// each message would cost more than all the rest of the limit.
	rateTick = 5 * time.Millisecond
	// leastBurst is which part of perSecond a burst has to be: what comes in one
	// rateTick must find room in the bucket, even if that is a late one.
	leastBurst = 100
)

// rateLimits bounds the messages of each user on this node, by topic and action. It
// costs a message two loads of memory and, if it is limited, one exchange.
type rateLimits struct {
	limits  []rate.Limit
	labels  []RateLimit          // what each limit is on
	plans   map[string]*ratePlan // by role
	others  *ratePlan            // of roles without a plan
	refused []atomic.Uint64      // by limit
	now     atomic.Int64         // nanoseconds since Run began, and one; in steps of rateTick

	mu      sync.Mutex
	users   map[string]*spender // guarded by mu
	resting list.List           // spenders without a connection, in the order they lost it; guarded by mu
}

// ratePlan says which limit is on what; 0 is none, else one more than its index.
type ratePlan [protocol.TopicPresence + 1][countedActions]uint16

// spender is one user's buckets on this node, whatever its connections do.
type spender struct {
	key     string
	buckets []rate.Bucket // by limit
	conns   int           // guarded by rateLimits.mu
	rests   *list.Element // of resting; guarded by rateLimits.mu
}

// spending is a connection's part in it. It is the connection's reader's alone.
type spending struct {
	*spender
	user *auth.User // whose plan it is: it is another one when the login was renewed
	plan *ratePlan
}

// spendingConn is a client as the limits see it.
type spendingConn interface {
	Attached() any
	User() *auth.User
}

// newRateLimits is nil when nothing is limited. The entries are valid.
func newRateLimits(entries []RateLimit) *rateLimits {
	if len(entries) == 0 {
		return nil
	}
	r := &rateLimits{
		labels: entries, plans: make(map[string]*ratePlan), refused: make([]atomic.Uint64, len(entries)),
		users: make(map[string]*spender),
	}
	r.now.Store(1)
	for _, e := range entries {
		r.limits = append(r.limits, rate.Per(e.PerSecond, e.Burst))
		if e.Role != "" {
			r.plans[e.Role] = nil
		}
	}
	r.others = r.plan("")
	for role := range r.plans {
		r.plans[role] = r.plan(role)
	}
	return r
}

// plan is what counts for a role: of each action, the first entry that fits.
func (r *rateLimits) plan(role string) *ratePlan {
	p := new(ratePlan)
	for i, e := range r.labels {
		if e.Role != "" && e.Role != role {
			continue
		}
		topic, _ := limitedTopic(e.Topic) // it is valid
		for _, a := range limitedActions(topic, e.Action) {
			if p[topic][a] == 0 {
				p[topic][a] = uint16(i + 1)
			}
		}
	}
	return p
}

// Run keeps the clock of the limits until ctx ends.
func (r *rateLimits) Run(ctx context.Context) error {
	if r == nil {
		return nil
	}
	clock := rate.NewClock()
	began := r.now.Load()
	ticker := time.NewTicker(rateTick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.now.Store(began + clock.Now())
		case <-ctx.Done():
			return nil
		}
	}
}

// spendingAs is whose buckets a client has: those of its user, or, of one without a
// name, of its address (of IPv6, the /64), or all who have none would share one.
func spendingAs(u *auth.User, remote string) string {
	if !u.IsAnonymous() {
		return "u" + u.ID
	}
	addr, err := netip.ParseAddr(remote)
	if err != nil {
		return "a" + remote
	}
	return "a" + auth.Network(addr).String()
}

// opened gives a client that has logged in its part in its user's buckets.
func (r *rateLimits) opened(u *auth.User, remote string) *spending {
	key := spendingAs(u, remote)
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.users[key]
	if s == nil {
		s = &spender{key: key, buckets: make([]rate.Bucket, len(r.limits))}
		r.users[key] = s
	}
	if s.rests != nil {
		r.resting.Remove(s.rests)
		s.rests = nil
	}
	s.conns++
	r.forget(2)
	return &spending{spender: s, user: u, plan: r.planOf(u)}
}

// closed takes it back. The buckets stay until they are full: who comes back at once
// finds them as they were.
func (r *rateLimits) closed(s *spending) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.conns--; s.conns == 0 {
		s.rests = r.resting.PushBack(s.spender)
	}
	r.forget(2)
}

// forget drops up to n users without a connection whose buckets are full; those that
// are not go to the end of the queue. It is called whenever one comes or goes, so that
// no more are kept than came within the time that the slowest bucket takes to fill,
// twice over. The caller holds mu.
func (r *rateLimits) forget(n int) {
	now := r.now.Load()
	for range min(n, r.resting.Len()) {
		e := r.resting.Front()
		s := e.Value.(*spender)
		if !s.full(now) {
			r.resting.MoveToBack(e)
			continue
		}
		r.resting.Remove(e)
		delete(r.users, s.key)
	}
}

// full says that all buckets of s are full.
func (s *spender) full(now int64) bool {
	for i := range s.buckets {
		if !s.buckets[i].Full(now) {
			return false
		}
	}
	return true
}

// planOf is what counts for a user.
func (r *rateLimits) planOf(u *auth.User) *ratePlan {
	if len(r.plans) == 0 || u.ServerData == "" {
		return r.others
	}
	var data struct {
		Role string `json:"role"`
	}
	if json.Unmarshal([]byte(u.ServerData), &data) != nil {
		return r.others // it is no object, or its role is no text
	}
	if p := r.plans[data.Role]; p != nil {
		return p
	}
	return r.others
}

// admit says whether the client may send m now. It is called on the client's reader.
func (r *rateLimits) admit(c sub.Client, m *protocol.Message) bool {
	conn, ok := c.(spendingConn)
	if !ok {
		return true // none of a user's
	}
	s, ok := conn.Attached().(*spending)
	if !ok {
		return true // it has not been opened
	}
	if u := conn.User(); u != s.user { // renewed, perhaps with another role
		s.user, s.plan = u, r.planOf(u)
	}
	i := s.plan[m.Topic][m.Action] // the shape of m is known, so both are small
	if i == 0 || s.buckets[i-1].Take(r.limits[i-1], r.now.Load()) == 0 {
		return true
	}
	r.refused[i-1].Add(1)
	return false
}

// deny tells the client of each name of m that it is refused, with what correlates the
// answer to the request.
func (p *pipeline) deny(c sub.Client, m *protocol.Message) {
	action := protocol.Denied(m.Topic)
	if len(m.Names) == 0 {
		refuse(c, m, m.Name, action)
		return
	}
	for i, name := range m.Names {
		refuse(c, m, name, action)
		if (i+1)%pace == 0 {
			c.Pace()
		}
	}
}

// rateStat is how many messages one entry of rateLimits has refused.
type rateStat struct {
	RateLimit
	Refused uint64
}

// stats counts by entry; nothing when nothing is limited.
func (r *rateLimits) stats() []rateStat {
	if r == nil {
		return nil
	}
	list := make([]rateStat, len(r.labels))
	for i := range list {
		list[i] = rateStat{r.labels[i], r.refused[i].Load()}
	}
	return list
}
