// Package rpc is the room for remote procedure calls: it brings a caller's REQUEST
// to one provider of the name and the provider's answers back, and sees to it that
// each call ends exactly once, also when providers reject, leave or are silent
// (spec 10).
//
// # A call
//
// A call is known by its caller's socket and correlation id; the provider it is
// put to knows it by name and correlation id, which is all that its answers carry.
// So an answer counts only if it comes from the socket that is being asked. Both
// timers start when a provider is asked: AckTimeout until it accepts,
// ResponseTimeout until it answers. A REJECT, or the provider's leaving, puts the
// call to a provider that has not had it yet, with both timers anew; when there is
// none, the caller gets NO_RPC_PROVIDER.
//
// # Decisions where the spec leaves room
//
//   - A REQUEST whose correlation id is that of a running call of the same socket is
//     refused with INVALID_RPC_CORRELATION_ID; the running call goes on. So is a
//     REQUEST without a correlation id, which nobody could answer.
//   - Two callers may choose the same id. While a provider is asked by one of them,
//     the other's call of that name goes to another provider; if all are taken so,
//     it ends with NO_RPC_PROVIDER.
//   - Data that is not JSON never passes, because the receiving client fails on it.
//     The caller's promise is settled by a REQUEST_ERROR with the data
//     "INVALID_MESSAGE_DATA", whoever sent it; a provider gets INVALID_MESSAGE_DATA
//     besides, and its call is over.
//   - A REQUEST of a caller with very many calls under way (64 MB of them) is settled
//     by a REQUEST_ERROR with the data "TOO_MANY_CALLS".
//   - An answer to another node for which too much waits already (half of what may wait
//     on the link, 32 MB) becomes a REQUEST_ERROR with the data "TOO_MANY_ANSWERS".
//   - A caller that leaves: the call is not put to anybody else, and what its
//     provider still says is dropped without an error, until it ends or times out.
//   - UNPROVIDE does not end the calls that are being answered.
//   - Nothing is reordered: a client that calls before it provides gets
//     NO_RPC_PROVIDER (trap 48).
//
// # Other nodes
//
// A node's part of a cluster.Set are the names that its clients provide. A call goes to
// the providers of the caller's node first, and when none of them is left, to a node
// that has the name, in random order, each at most once. That node puts it to its own
// providers one after the other, and never to a third node. It says when it asks
// another provider, which starts both timers anew, as on one node; when the provider
// has accepted; and the answer, or that nobody is left. Then the call comes back and
// goes on to the next node, after the providers that have come here meanwhile.
//
// The node of the caller has the clock and the only say: it gives up, moves on, and
// answers the caller, once. What another node says about a call that has moved on is
// known by its number and dropped, and that node is told to forget it; if it cannot be
// told, it hears that the link has ended. A node whose link ends, or that the table
// says is dead, is like a provider that has left: the call goes on to another. So it
// may have been begun by a provider whose node died, or cannot be reached, with or
// without having accepted; nobody can tell. A provider that is silent never makes a
// call go on.
//
// However many reject a call, nobody else is asked when three times ResponseTimeout
// have passed since it was made (rounds): it ends with ACCEPT_TIMEOUT. So each call ends
// within four.
//
// Who provides what is known elsewhere some milliseconds later: until then a caller
// there may be told NO_RPC_PROVIDER. So it is when all nodes that provide the name
// cannot be reached from here.
//
// # Time
//
// All calls have the same two timeouts, so the order in which timers start is the
// order in which they end: two linked lists, whose heads one goroutine (Run) waits
// for. A timer that is stopped is taken out at once; a busy room keeps nothing of
// the calls that are over, which timers of their own would.
//
// # Lock
//
// One mutex guards everything. What is done under it is a few map accesses, and
// messages without payload are handed to Client.Answer; payloads are encoded after
// it is given back, but for calls to other nodes, which are queued under it: what is
// said about a call has to arrive behind it. The locks inside the Set and the Bus are
// taken under it, never the other way round. It is not sharded, because a call touches two clients and a
// name, and the section is short against what the sockets cost.
package rpc

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"hadal/cluster"
	"hadal/node/sub"
	"hadal/protocol"
	"hadal/protocol/jsonpath"
)

const (
	// pace is how many names of one request are treated before the client's queue
	// of answers is looked at.
	pace = 256
	// chunk is how many timers expire, and names or calls of one client are let go,
	// before the mutex is given to others.
	chunk = 256
	// invalidData is the error value of a call whose data was not JSON.
	invalidData = `"INVALID_MESSAGE_DATA"`
	// maxRunning is how much the calls of one caller that are under way may count
	// for, in bytes; callOverhead is what each does beside its texts. That is some
	// hundred thousand small calls.
	maxRunning   = 64 << 20
	callOverhead = 512
	// tooManyCalls is the error value of a call beyond that.
	tooManyCalls = `"TOO_MANY_CALLS"`
	// tooManyAnswers is the error value of a call whose answer found no room on the way to
	// the caller's node.
	tooManyAnswers = `"TOO_MANY_ANSWERS"`
	// rounds is for how many times ResponseTimeout a call may go from one to another.
	rounds = 3
)

// Room knows the providers and the running calls. Its methods may be called from
// anywhere, Handle on the reader of the client it is called for. Nothing times out
// before Run.
type Room struct {
	cfg   Config
	began time.Time
	log   *slog.Logger
	bus   cluster.Bus
	table cluster.Table
	set   *cluster.Set // the names that nodes provide

	mu        sync.Mutex
	gate      sub.Gate              // guarded by mu
	providers map[string][]provider // by rpc name, never empty; guarded by mu
	clients   map[uint64]*client    // those that provide, call or are asked; guarded by mu
	acks      timers                // calls whose provider has not accepted; guarded by mu
	answers   timers                // all running calls; guarded by mu
	peers     map[string]*peer      // nodes that are linked; guarded by mu
	serving   int                   // calls of peers among the running; guarded by mu
	serial    uint64                // of the last call put to a peer; guarded by mu
	most      int                   // maxServed, which tests change; guarded by mu
	count     Stats                 // guarded by mu

	wake chan struct{} // says to Run that a list of timers is not empty any more
}

// provider carries the id so that the client need not be asked for it.
type provider struct {
	id uint64
	c  sub.Client
}

// client is what the room knows about one socket. Guarded by Room.mu.
type client struct {
	provides map[string]int      // rpc name → index in providers
	made     map[string]*running // by correlation id
	asked    map[question]*running
	bytes    int // that the calls in made count for
}

// question is how a provider names a call.
type question struct{ name, id string }

// running is one call under way. Guarded by Room.mu but for the question, by and from.
// It was made by a client here, or by one of another node: then it is asked here only,
// and the times and the outcome are that node's business.
type running struct {
	question
	data  string
	bytes int        // of the texts at first
	by    *requestor // or nil
	from  sub.Client // the caller, or nil

	origin *peer // whose call it is, or nil

	orphan   bool                // the caller has left
	provider provider            // who is asked, or nobody
	node     *peer               // or it is this node
	number   uint64              // by which node or origin knows it
	accepted bool                // by the provider
	tried    map[uint64]struct{} // those asked before; nil until one has rejected
	nodes    []string            // likewise
	until    time.Duration       // when nobody else is asked any more, since Room.began
	ack      timer
	answer   timer
}

// Stats are gauges and counters of the room.
type Stats struct {
	// Names is how many names have a provider here, Providers how many pairs of name and
	// provider there are, Running how many calls of clients here are under way, Serving
	// how many of other nodes are at providers here.
	Names, Providers, Running, Serving int
	// Requests counts calls taken, and the others how calls went since the start: a
	// call ends in exactly one of Responses, Errors, NoProvider, AcceptTimeouts,
	// ResponseTimeouts or Abandoned (its caller left).
	Requests, Responses, Errors, NoProvider, AcceptTimeouts, ResponseTimeouts, Abandoned uint64
	// Rejects counts rejections, leaving providers included. Invalid counts provider
	// messages and requests refused for their correlation id or data, Full providers
	// refused because their client had too many names.
	Rejects, Invalid, Full uint64
	// Forwarded counts how many times a call was put to another node, Returned how many
	// times it came back without an answer, Served calls of other nodes put to providers
	// here, Unknown messages of peers that were not understood, Crowded answers to calls of
	// other nodes that were replaced by an error, as too much waited for that node.
	Forwarded, Returned, Served, Unknown, Crowded uint64
}

// New returns an empty room. A timeout of zero or less means the default. The bus does
// not run yet.
func New(cfg Config, bus cluster.Bus, table cluster.Table, log *slog.Logger) *Room {
	def := DefaultConfig()
	if cfg.AckTimeout <= 0 {
		cfg.AckTimeout = def.AckTimeout
	}
	if cfg.ResponseTimeout <= 0 {
		cfg.ResponseTimeout = def.ResponseTimeout
	}
	r := &Room{
		cfg: cfg, began: time.Now(), log: log.With("topic", protocol.TopicRPC.String()), bus: bus, table: table,
		set:       cluster.NewSet(bus, table, cluster.KindRPCProviders, nil),
		providers: make(map[string][]provider),
		clients:   make(map[uint64]*client),
		peers:     make(map[string]*peer),
		// Not from 1: a peer must not take what it hears of a call of an earlier life of
		// this node for one of now.
		serial: rand.Uint64(), most: maxServed,
		wake: make(chan struct{}, 1),
	}
	r.acks.init()
	r.answers.init()
	bus.Handle(cluster.KindRPC, handler{r})
	return r
}

// Handle takes a message of topic RPC that has been found permitted. Actions that
// no client may send are logged and dropped.
func (r *Room) Handle(c sub.Client, m *protocol.Message) {
	switch m.Action {
	case protocol.RPCRequest:
		r.request(c, m)
	case protocol.RPCAccept:
		r.accept(c, m)
	case protocol.RPCResponse, protocol.RPCRequestError:
		r.respond(c, m)
	case protocol.RPCReject:
		r.reject(c, m)
	case protocol.RPCProvide:
		r.provide(c, m)
	case protocol.RPCUnprovide:
		r.unprovide(c, m)
	default:
		r.log.Debug("action ignored", "conn", c.ID(), "action", m.Action.Name(protocol.TopicRPC))
	}
}

// Closed forgets a client that has disconnected; Gone is true by then. What it was
// asked goes to others, what it asked goes nowhere.
func (r *Room) Closed(c sub.Client) {
	id := c.ID()
	r.mu.Lock()
	k := r.clients[id]
	if k == nil {
		r.mu.Unlock()
		return
	}
	// Nobody adds anything for a client that has gone, and pick passes it over.
	n := 0
	others := func() {
		if n++; n%chunk == 0 {
			r.mu.Unlock()
			r.mu.Lock()
		}
	}
	for name := range k.provides {
		r.withdraw(k, name)
		others()
	}
	for _, call := range k.made {
		call.orphan, call.data = true, ""
		if call.node != nil {
			r.tell(call.node, wireGone, call.number)
		}
		others()
	}
	k.made = nil
	var todo []delivery
	for _, call := range k.asked {
		r.count.Rejects++
		todo = append(todo, r.reroute(call))
		others()
	}
	delete(r.clients, id)
	r.mu.Unlock()
	for _, d := range todo {
		d.send()
	}
}

// Stats returns the numbers of this moment.
func (r *Room) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.count
	st.Names = len(r.providers)
	st.Running, st.Serving = r.answers.n-r.serving, r.serving
	return st
}

// Peers are the numbers of what nodes tell each other about who provides what.
func (r *Room) Peers() cluster.SetStats { return r.set.Stats() }

// Missing are the live nodes whose providers are not known here yet.
func (r *Room) Missing() []string { return r.set.Missing() }

// Run ends calls whose time has passed, and follows what other nodes provide and which
// of them are alive, until ctx ends. It is called once.
func (r *Room) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { r.watch(ctx) })
	wg.Go(func() { r.runTimers(ctx) })
	return r.set.Run(ctx)
}

// runTimers ends calls whose time has passed, until ctx ends.
func (r *Room) runTimers(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(r.expire())
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.wake:
		}
	}
}

// expire ends what is due and returns how long to wait for the next.
func (r *Room) expire() time.Duration {
	for {
		r.mu.Lock()
		now := time.Now()
		for range chunk {
			call, wait := r.acks.due(now)
			if call != nil {
				r.timedOut(call, &r.count.AcceptTimeouts, protocol.RPCAcceptTimeout)
				continue
			}
			call, wait2 := r.answers.due(now)
			if call != nil {
				r.timedOut(call, &r.count.ResponseTimeouts, protocol.RPCResponseTimeout)
				continue
			}
			r.mu.Unlock()
			return min(wait, wait2)
		}
		r.mu.Unlock()
	}
}

// timedOut ends a call for want of time and counts that. The caller holds mu.
func (r *Room) timedOut(call *running, count *uint64, a protocol.Action) {
	r.cancel(call)
	if !call.orphan && call.origin == nil {
		*count++
	}
	r.end(call)
	r.tellCaller(call, a)
}

// known returns what the room knows about c, which it now does. The caller holds mu.
func (r *Room) known(c sub.Client) *client {
	k := r.clients[c.ID()]
	if k == nil {
		k = &client{}
		r.clients[c.ID()] = k
	}
	return k
}

// forget drops a client about which nothing is known any more. The caller holds mu.
func (r *Room) forget(id uint64, k *client) {
	if len(k.provides) == 0 && len(k.made) == 0 && len(k.asked) == 0 {
		delete(r.clients, id)
	}
}

func (r *Room) provide(c sub.Client, m *protocol.Message) {
	for i, name := range m.Names {
		switch r.enlist(c, m, name) {
		case sub.Full:
			c.Answer(sub.TooMany(m, name))
		case sub.Already:
			c.Answer(&protocol.Message{
				Topic: protocol.TopicRPC, Action: protocol.RPCMultipleProviders,
				Has: protocol.HasName | protocol.HasOriginalAction, Name: name, OriginalAction: m.Action,
			})
		}
		if i%pace == pace-1 {
			c.Pace()
		}
	}
	ack(c, m)
}

// enlist makes c a provider of name, one of those in m.
func (r *Room) enlist(c sub.Client, m *protocol.Message, name string) sub.Added {
	for judged := m.Judged; ; {
		added, rules := r.add(c, name, judged)
		if rules == nil {
			return added
		}
		var ok bool
		if judged, ok = sub.Again(rules, c, m, name); !ok {
			return sub.Refused
		}
	}
}

// add makes c a provider of name, or returns rules that have to be asked first.
func (r *Room) add(c sub.Client, name string, judged uint64) (sub.Added, sub.Rules) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rules := r.gate.Holds(judged); rules != nil {
		return sub.Refused, rules
	}
	if c.Gone() { // Closed was called, or will be: then it must find nothing new
		return sub.Ended, nil
	}
	k := r.known(c)
	if _, ok := k.provides[name]; ok {
		return sub.Already, nil
	}
	if !c.Reserve(sub.Weight(name)) {
		r.count.Full++
		r.forget(c.ID(), k)
		return sub.Full, nil
	}
	if k.provides == nil {
		k.provides = make(map[string]int, 1)
	}
	name = strings.Clone(name)
	list := r.providers[name]
	k.provides[name] = len(list)
	r.providers[name] = append(list, provider{c.ID(), c})
	r.count.Providers++
	if len(list) == 0 {
		r.set.Add(name)
		return sub.First, nil
	}
	return sub.Further, nil
}

func (r *Room) unprovide(c sub.Client, m *protocol.Message) {
	for names := range slices.Chunk(m.Names, chunk) {
		r.mu.Lock()
		if k := r.clients[c.ID()]; k != nil {
			for _, name := range names {
				if _, ok := k.provides[name]; ok {
					r.withdraw(k, name)
				}
			}
			r.forget(c.ID(), k)
		}
		r.mu.Unlock()
	}
	ack(c, m)
}

// withdraw takes a client out of the providers of a name that it provides. The
// caller holds mu.
func (r *Room) withdraw(k *client, name string) {
	i := k.provides[name]
	delete(k.provides, name)
	r.count.Providers--
	list := r.providers[name]
	list[i].c.Release(sub.Weight(name))
	end := len(list) - 1
	if end == 0 {
		delete(r.providers, name)
		r.set.Remove(name)
		return
	}
	if i != end {
		list[i] = list[end]
		r.clients[list[i].id].provides[name] = i
	}
	list[end] = provider{}
	r.providers[name] = list[:end]
}

// ack acknowledges a bulk request, with nothing but its correlation id (trap 7).
func ack(c sub.Client, m *protocol.Message) {
	c.Answer(&protocol.Message{
		Topic: protocol.TopicRPC, Action: m.Action, IsAck: true,
		Has: m.Has & protocol.HasCorrelationID, CorrelationID: m.CorrelationID,
	})
}

// validData says whether the payload of m may pass; none at all may.
func validData(m *protocol.Message) bool { return m.Data == "" || jsonpath.ValidJSON(m.Data) }

// withData is has, and HasData if there is a payload: an empty one is none (trap 2).
func withData(has protocol.Fields, data string) protocol.Fields {
	if data != "" {
		has |= protocol.HasData
	}
	return has
}

// pick returns a provider of the call's name that has not had it, uniformly at
// random for the first one and else round the list from a random start, and skips
// those that are asked something by the same question. The caller holds mu.
func (r *Room) pick(call *running) (provider, bool) {
	list := r.providers[call.name]
	if len(list) == 0 {
		return provider{}, false
	}
	start := rand.IntN(len(list))
	for i := range list {
		p := list[(start+i)%len(list)]
		if _, tried := call.tried[p.id]; tried || p.c.Gone() {
			continue
		}
		if _, taken := r.clients[p.id].asked[call.question]; taken {
			continue
		}
		return p, true
	}
	return provider{}, false
}
