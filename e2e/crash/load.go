//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"hadal/auth"
	"hadal/node/record"
	"hadal/protocol"
)

// known is the version that the writers believe a record has, 0 when they believe
// that there is none. They all go by it, so they compete.
type known struct{ version atomic.Int32 }

func (k *known) set(version int32) { k.version.Store(version) }
func (k *known) get() int32        { return k.version.Load() }

// client is a logged-in client in the victim's own process.
type client struct {
	id   uint64
	user auth.User
}

// ID implements sub.Client.
func (c *client) ID() uint64 { return c.id }

// User implements sub.Client.
func (c *client) User() *auth.User { return &c.user }

// Gone implements sub.Client.
func (*client) Gone() bool { return false }

// Reserve implements sub.Client.
func (*client) Reserve(int) bool { return true }

// Release implements sub.Client.
func (*client) Release(int) {}

// Pace implements sub.Client.
func (*client) Pace() {}

// Send implements sub.Client: a broadcast.
func (*client) Send(*protocol.Outbound) {}

// writer writes, deletes and reads, one at a time. Its answers come on the owner's
// goroutine, and are told from there, so in the order in which things happened.
type writer struct {
	client
	who      uint8
	victim   *victim
	room     *record.Room
	rand     *rand.Rand
	asked    event     // what is under way
	answered chan bool // false when it was refused with an error
}

// load starts the writers of an owner.
func (v *victim) load(ctx context.Context, r *record.Room, first uint8) {
	for i := range uint8(writers) {
		w := &writer{
			client: client{id: uint64(first+i) + 1}, who: first + i, victim: v, room: r,
			rand: rand.New(rand.NewPCG(v.seed, uint64(first+i))), answered: make(chan bool, 1),
		}
		v.running.Go(func() { w.run(ctx) })
	}
}

func (w *writer) run(ctx context.Context) {
	for {
		w.ask()
		select {
		case <-ctx.Done():
			return
		case ok := <-w.answered:
			if !ok {
				<-time.After(time.Millisecond) // an owner that was replaced refuses at once
			}
		}
	}
}

// ask does one thing: half of it to the hot records, most of it writes under the
// version that must come next.
func (w *writer) ask() {
	n := uint16(w.rand.IntN(allNames))
	if w.rand.IntN(2) == 0 {
		n = uint16(w.rand.IntN(hotNames))
	}
	m := protocol.Message{Topic: protocol.TopicRecord, Name: nameOf(n), Has: protocol.HasName}
	w.asked = event{who: w.who, name: n}
	switch dice := w.rand.IntN(32); {
	case dice < 3:
		m.Action = protocol.RecordDelete
		w.asked.kind = sentDelete
		w.victim.pipe.tell(w.asked)
	case dice < 5:
		m.Action = protocol.RecordRead
		w.asked.kind = read
	default:
		m.Action, m.IsWriteAck, m.CorrelationID = protocol.RecordCreateAndUpdate, true, "1"
		m.Version = w.victim.known[n].get() + 1
		m.Data = fmt.Sprintf(`{"name":%q,"n":%d,"by":%d,"once":%d,"pad":"%s"}`,
			m.Name, m.Version, w.who, w.rand.Uint64(), strings.Repeat("x", w.rand.IntN(400)))
		m.Has |= protocol.HasVersion | protocol.HasData | protocol.HasCorrelationID
		w.asked.kind, w.asked.version, w.asked.hash = sentWrite, m.Version, hashOf(m.Data)
		w.victim.pipe.tell(w.asked)
	}
	w.room.Handle(w, &m)
}

// Answer implements sub.Client.
func (w *writer) Answer(m *protocol.Message) {
	e, ok := event{who: w.who, name: w.asked.name}, true
	switch m.Action {
	case protocol.RecordWriteAcknowledgement:
		e = w.asked
		e.kind = wrote
	case protocol.RecordDeleteSuccess:
		e.kind = deleted
	case protocol.RecordVersionExists:
		e.kind, e.version, e.hash = conflict, m.Version, hashOf(m.Data)
	case protocol.RecordInvalidVersion:
		e.kind, e.version = tooFar, m.Version
	case protocol.RecordReadResponse:
		e.kind, e.version, e.hash = read, m.Version, hashOf(m.Data)
	case protocol.RecordRecordNotFound:
		e.kind = missing
	default:
		e.kind, ok = failed, false
	}
	w.victim.pipe.tell(e)
	if ok {
		w.victim.known[e.name].set(e.version)
	}
	w.answered <- ok
}

// AnswerShared implements sub.Client.
func (w *writer) AnswerShared(o *protocol.Outbound) { w.Answer(&o.Message) }

// watcher is subscribed to the hot records. A deletion ends a subscription, so it
// subscribes anew.
type watcher struct {
	client
	pipe pipe
	gone chan string
}

// watch starts the watcher of an owner.
func (v *victim) watch(ctx context.Context, r *record.Room) {
	w := &watcher{client: client{id: 2*writers + 1}, pipe: v.pipe, gone: make(chan string, hotNames)}
	var names []string
	for n := range uint16(hotNames) {
		names = append(names, nameOf(n))
	}
	subscribe := func(names []string) {
		r.Handle(w, &protocol.Message{
			Topic: protocol.TopicRecord, Action: protocol.RecordSubscribeAndRead, Names: names,
			CorrelationID: "1", Has: protocol.HasCorrelationID,
		})
	}
	subscribe(names)
	v.running.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case name := <-w.gone:
				subscribe([]string{name})
			}
		}
	})
}

// Answer implements sub.Client.
func (w *watcher) Answer(m *protocol.Message) {
	if m.Action == protocol.RecordReadResponse {
		w.tell(event{kind: read, version: m.Version, hash: hashOf(m.Data)}, m.Name)
	}
}

// AnswerShared implements sub.Client.
func (w *watcher) AnswerShared(o *protocol.Outbound) { w.Answer(&o.Message) }

// Send implements sub.Client.
func (w *watcher) Send(o *protocol.Outbound) {
	switch o.Action {
	case protocol.RecordUpdate:
		w.tell(event{kind: shown, version: o.Version, hash: hashOf(o.Data)}, o.Name)
	case protocol.RecordDeleted:
		w.tell(event{kind: shownGone}, o.Name)
		w.gone <- o.Name // each name is here once at most, until it is subscribed anew
	}
}

func (w *watcher) tell(e event, name string) {
	n, ok := numberOf(name)
	if !ok {
		panic("the watcher heard of " + name)
	}
	e.name = n
	if e.version < 0 { // how a read of a missing record is answered to a subscriber
		e = event{kind: missing, name: n}
	}
	w.pipe.tell(e)
}
