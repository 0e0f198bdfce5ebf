// Package presence is the room that knows which users are online, and tells those
// who want to hear it (spec 11).
//
// A user is online while at least one of its sockets is logged in. Only the first
// login and the last end are announced: PRESENCE_JOIN and PRESENCE_LEAVE to those
// who subscribed to the user, PRESENCE_JOIN_ALL and PRESENCE_LEAVE_ALL to those who
// subscribed to everybody; the latter first. Anonymous users never appear (trap
// 22), and there is no user of a reserved name: the subscribers to everybody stand
// in a table of their own, and `%_EVERYONE_%` is a name like others.
//
// # Other nodes
//
// What is said above holds for the cluster. The users of a node's own sockets are its
// part of a cluster.Set, and a user is online while it has a socket here or is in the
// part of another node that is alive. Every node derives from that, by itself, what to
// announce to its own subscribers: nobody else need tell it, and when a node dies its
// users leave on all others by the verdict of the table.
//
// Two nodes are not heard in the order in which things happened: when a user whose
// socket is at one opens a second at another and closes the first, a third node may
// hear of the end before the beginning. So where there are other nodes, a user who
// seems to have left is given the time that a Set takes to settle (a tenth of a second)
// to turn up elsewhere, before the end is announced; until then queries say that it is
// online. In a node alone nothing waits.
//
// # Order
//
// A user's sockets and nodes are counted, and its coming and going is announced, under
// the lock of the shard its id falls into: nobody sees a LEAVE before the JOIN it
// belongs to, or two JOINs in a row. What is true of two users has no order.
//
// # Locks
//
// A shard's lock, then those inside sub.Registry, the Set, or leaving; never two shards.
// Under it only Client.Gone and, through the registry, Client.Send are called.
package presence

import (
	"context"
	"encoding/json"
	"hash/maphash"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"hadal/cluster"
	"hadal/node/sub"
	"hadal/protocol"
)

const (
	// shards is the number of parts of the table of users; a power of two.
	shards = 64
	// pace is how many names of one request are treated before the client's queue
	// of answers is looked at.
	pace = 256
	// everyone is the name by which the wire calls a subscription to everybody.
	everyone = "%_EVERYONE_%"
)

// Room knows who is online. Its methods may be called from anywhere, Handle on the
// reader of the client it is called for.
type Room struct {
	log   *slog.Logger
	seed  maphash.Seed
	users [shards]shard
	names *sub.Registry // subscriptions to single users
	all   *sub.Registry // subscriptions to everybody, under the name everyone
	set   *cluster.Set  // who has a socket at which node

	leaving       leaving
	joins, leaves atomic.Uint64
}

type shard struct {
	mu     sync.RWMutex
	online map[string]*user // by id: those whose coming was announced, and not their going; guarded by mu
	_      [96]byte         // keeps neighbours out of one cache line pair
}

// user is one who is online. It is guarded by the mutex of its shard.
type user struct {
	sockets   map[uint64]struct{} // here
	elsewhere int                 // nodes that have it too
	leaves    uint64              // its number in leaving, or 0
}

func (u *user) gone() bool { return len(u.sockets) == 0 && u.elsewhere == 0 }

// Stats are gauges and counters of the room.
type Stats struct {
	// Users is how many users are online, Elsewhere how many of them at other nodes
	// (and maybe here too), Sockets how many connections to this node they have.
	Users, Elsewhere, Sockets int
	// Subscriptions counts those to single users, Global those to everybody.
	Subscriptions, Global int
	// Refused counts subscriptions refused to clients that had too many.
	Refused uint64
	// Joins and Leaves count announcements since the start.
	Joins, Leaves uint64
}

// New returns a room in which nobody is online. The bus does not run yet.
func New(bus cluster.Bus, table cluster.Table, log *slog.Logger) *Room {
	r := &Room{
		log: log.With("topic", protocol.TopicPresence.String()), seed: maphash.MakeSeed(),
		names: sub.NewRegistry(), all: sub.NewRegistry(),
		leaving: leaving{wake: make(chan struct{}, 1)},
	}
	for i := range r.users {
		r.users[i].online = make(map[string]*user)
	}
	r.set = cluster.NewSet(bus, table, cluster.KindPresence, r.changed)
	return r
}

// Run tells other nodes of this one's users and hears of theirs, until ctx ends. It is
// called once.
func (r *Room) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.runLeaving(ctx) })
	defer stop()
	return r.set.Run(ctx)
}

func (r *Room) shard(user string) *shard {
	return &r.users[maphash.String(r.seed, user)%shards]
}

// Login counts a client whose AUTH_SUCCESSFUL has been sent (so that it does not
// see itself join). A client that has gone is not counted, so it does not matter
// whether Closed comes before or after; nor does a second call.
func (r *Room) Login(c sub.Client) {
	u := c.User()
	if u == nil || u.IsAnonymous() {
		return
	}
	s := r.shard(u.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Gone() {
		return
	}
	is := r.come(s, u.ID)
	if is.sockets == nil {
		is.sockets = make(map[uint64]struct{}, 1)
		r.set.Add(u.ID)
	}
	is.sockets[c.ID()] = struct{}{}
}

// Closed forgets a client that has disconnected, whether it had logged in or not;
// Gone is true by then.
func (r *Room) Closed(c sub.Client) {
	r.names.RemoveClient(c)
	r.all.RemoveClient(c)
	u := c.User()
	if u == nil {
		return
	}
	s := r.shard(u.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	is := s.online[u.ID]
	if is == nil {
		return
	}
	if _, ok := is.sockets[c.ID()]; !ok {
		return
	}
	delete(is.sockets, c.ID())
	if len(is.sockets) == 0 {
		is.sockets = nil
		r.set.Remove(u.ID)
		r.goes(s, u.ID, is)
	}
}

// changed is told by the set that another node has got a user or lost it.
func (r *Room) changed(_, name string, has bool) {
	s := r.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if has {
		r.come(s, name).elsewhere++
		return
	}
	if is := s.online[name]; is != nil && is.elsewhere > 0 {
		is.elsewhere--
		r.goes(s, name, is)
	}
}

// come returns a user who gets a socket or a node, announced if it was not online.
// The caller holds the shard.
func (r *Room) come(s *shard, name string) *user {
	is := s.online[name]
	if is == nil {
		name = strings.Clone(name)
		is = &user{}
		s.online[name] = is
		r.joins.Add(1)
		r.announce(name, protocol.PresencePresenceJoinAll, protocol.PresencePresenceJoin)
	}
	is.leaves = 0
	return is
}

// goes looks whether a user has left, who has lost a socket or a node. The caller
// holds the shard.
func (r *Room) goes(s *shard, name string, is *user) {
	if !is.gone() {
		return
	}
	if wait := r.set.Settle(); wait > 0 {
		is.leaves = r.leaving.put(name, wait)
		return
	}
	r.left(s, name)
}

// left ends a user. The caller holds the shard.
func (r *Room) left(s *shard, name string) {
	delete(s.online, name)
	r.leaves.Add(1)
	r.announce(name, protocol.PresencePresenceLeaveAll, protocol.PresencePresenceLeave)
}

// announce tells both kinds of subscribers, if there are any: mostly there are none. The
// caller holds the user's shard.
func (r *Room) announce(user string, all, one protocol.Action) {
	if r.all.Wants(everyone) {
		r.all.Deliver(everyone, nil, event(all, user))
	}
	if r.names.Wants(user) {
		r.names.Deliver(user, nil, event(one, user))
	}
}

func event(a protocol.Action, user string) *protocol.Outbound {
	return &protocol.Outbound{Message: protocol.Message{
		Topic: protocol.TopicPresence, Action: a, Has: protocol.HasName, Name: user,
	}}
}

// Handle takes a message of topic PRESENCE whose names have been found permitted.
// Actions that no client may send are logged and dropped.
func (r *Room) Handle(c sub.Client, m *protocol.Message) {
	switch m.Action {
	case protocol.PresenceSubscribe:
		r.subscribe(c, m)
	case protocol.PresenceUnsubscribe:
		for _, name := range m.Names {
			r.names.Remove(name, c)
		}
		ack(c, m, protocol.HasCorrelationID)
	case protocol.PresenceSubscribeAll:
		r.add(r.all, c, m, everyone)
		ack(c, m, 0)
	case protocol.PresenceUnsubscribeAll:
		r.all.Remove(everyone, c)
		ack(c, m, 0)
	case protocol.PresenceQuery:
		r.query(c, m)
	case protocol.PresenceQueryAll:
		r.queryAll(c)
	default:
		r.log.Debug("action ignored", "conn", c.ID(), "action", m.Action.Name(protocol.TopicPresence))
	}
}

// Rejudge ends the subscriptions that rules, which are in force, do not allow any
// more, and tells the clients. It returns how many that were.
func (r *Room) Rejudge(rules sub.Rules) int {
	// The rules know a subscription to everybody by its action, which has no name.
	return r.names.Rejudge(rules, protocol.TopicPresence, protocol.PresenceSubscribe, ended) +
		r.all.Rejudge(rules, protocol.TopicPresence, protocol.PresenceSubscribeAll, endedAll)
}

// RejudgeClient is Rejudge for one client, whose user has changed. It is called on its
// reader.
func (r *Room) RejudgeClient(rules sub.Rules, c sub.Client) int {
	return r.names.RejudgeClient(rules, c, protocol.TopicPresence, protocol.PresenceSubscribe, ended) +
		r.all.RejudgeClient(rules, c, protocol.TopicPresence, protocol.PresenceSubscribeAll, endedAll)
}

func ended(name string, c sub.Client, _ bool) {
	sub.TellEnded(c, protocol.TopicPresence, protocol.PresenceSubscribe, name)
}

func endedAll(_ string, c sub.Client, _ bool) {
	sub.TellEnded(c, protocol.TopicPresence, protocol.PresenceSubscribeAll, "")
}

// Stats returns the numbers of this moment.
func (r *Room) Stats() Stats {
	names, all := r.names.Stats(), r.all.Stats()
	st := Stats{
		Subscriptions: names.Subscriptions, Global: all.Subscriptions, Refused: names.Refused + all.Refused,
		Joins: r.joins.Load(), Leaves: r.leaves.Load(),
	}
	for i := range r.users {
		s := &r.users[i]
		s.mu.RLock()
		st.Users += len(s.online)
		for _, is := range s.online {
			st.Sockets += len(is.sockets)
			if is.elsewhere > 0 {
				st.Elsewhere++
			}
		}
		s.mu.RUnlock()
	}
	return st
}

// Peers are the numbers of what nodes tell each other about users.
func (r *Room) Peers() cluster.SetStats { return r.set.Stats() }

// Missing are the live nodes whose users are not known here yet.
func (r *Room) Missing() []string { return r.set.Missing() }

// online says whether a user has a socket that is logged in, anywhere.
func (r *Room) online(user string) bool {
	s := r.shard(user)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.online[user] != nil
}

func (r *Room) subscribe(c sub.Client, m *protocol.Message) {
	for i, name := range m.Names {
		r.add(r.names, c, m, name)
		if i%pace == pace-1 {
			c.Pace()
		}
	}
	ack(c, m, protocol.HasCorrelationID)
}

// add subscribes c to name, or says why not.
func (r *Room) add(to *sub.Registry, c sub.Client, m *protocol.Message, name string) {
	switch to.Subscribe(c, m, name) {
	case sub.Already:
		multiple(c, m, name)
	case sub.Full:
		c.Answer(sub.TooMany(m, name))
	}
}

// query answers with an object that says of each name whether it is online, the
// asker's own included.
func (r *Room) query(c sub.Client, m *protocol.Message) {
	data := make([]byte, 0, 2+16*len(m.Names))
	data = append(data, '{')
	seen := make(map[string]struct{}, len(m.Names))
	for _, name := range m.Names {
		if _, twice := seen[name]; twice {
			continue
		}
		key, err := json.Marshal(name)
		if err != nil { // a string always can be
			r.log.Error("user name cannot be written as JSON", "conn", c.ID(), "err", err)
			continue
		}
		if len(seen) > 0 {
			data = append(data, ',')
		}
		seen[name] = struct{}{}
		data = append(data, key...)
		if r.online(name) {
			data = append(data, ":true"...)
		} else {
			data = append(data, ":false"...)
		}
	}
	data = append(data, '}')
	c.Answer(&protocol.Message{
		Topic: protocol.TopicPresence, Action: protocol.PresenceQueryResponse,
		Has: m.Has&protocol.HasCorrelationID | protocol.HasData, CorrelationID: m.CorrelationID, Data: string(data),
	})
}

// queryAll answers with everybody who is online but the asker, in no order.
func (r *Room) queryAll(c sub.Client) {
	self := ""
	if u := c.User(); u != nil {
		self = u.ID
	}
	var names []string
	for i := range r.users {
		s := &r.users[i]
		s.mu.RLock()
		for user := range s.online {
			if user != self {
				names = append(names, user)
			}
		}
		s.mu.RUnlock()
	}
	c.Answer(&protocol.Message{
		Topic: protocol.TopicPresence, Action: protocol.PresenceQueryAllResponse, Names: names,
	})
}

func multiple(c sub.Client, m *protocol.Message, name string) {
	c.Answer(&protocol.Message{
		Topic: protocol.TopicPresence, Action: protocol.PresenceMultipleSubscriptions,
		Has: protocol.HasName | protocol.HasOriginalAction, Name: name, OriginalAction: m.Action,
	})
}

// ack acknowledges a request with its correlation id, or with nothing for the
// requests about everybody (trap 7).
func ack(c sub.Client, m *protocol.Message, with protocol.Fields) {
	has := m.Has & with
	a := &protocol.Message{Topic: protocol.TopicPresence, Action: m.Action, IsAck: true, Has: has}
	if has&protocol.HasCorrelationID != 0 {
		a.CorrelationID = m.CorrelationID
	}
	c.Answer(a)
}
