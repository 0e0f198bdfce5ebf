package node_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"hadal/auth"
	"hadal/cluster/clustertest"
	"hadal/node/record"
	"hadal/protocol"
	"hadal/store/storetest"
)

// anyRecord is the rules of a node on which everybody may do everything.
type anyRecord struct{}

func (anyRecord) Judge(*auth.User, protocol.Action, string, string, string, bool,
	func(string) (string, bool, bool)) (protocol.Action, []string) {
	return 0, nil
}

func (anyRecord) ReadsRecord(protocol.Action, string) bool { return false }

// keep is how records are kept. The smallest cache makes owners load a lot.
func (c *chaos) keep() record.KeepConfig {
	keep := record.DefaultKeepConfig()
	keep.CacheBytes = 1
	if c.wrong.early {
		keep.Durability = "fast"
	}
	return keep
}

// Records are called r0, r1 and so on; those that are deleted now and then d0, d1. They
// are so many that not too much happens to one, or its order is not found in time.
func recordName(r *rand.Rand) string {
	if r.IntN(4) == 0 {
		return fmt.Sprintf("d%d", r.IntN(6))
	}
	return fmt.Sprintf("r%d", r.IntN(10))
}

// recordData is the whole of a record: each write has a number of its own.
func recordData(id uint64) string { return fmt.Sprintf(`{"v":%d}`, id) }

func (u *chaosClient) requests(ctx context.Context, kind string, m *protocol.Message, version int32, data string) {
	a := asking{u.chaos.net.History.NewID(), m.Name, kind}
	if len(m.Names) > 0 {
		a.name = m.Names[0]
	}
	m.Topic = protocol.TopicRecord
	if kind == clustertest.Write {
		m.CorrelationID, m.IsWriteAck = strconv.FormatUint(a.id, 10), true
		u.writes[m.CorrelationID] = a
	} else {
		m.CorrelationID = "r"
		u.pending[a.name] = a
	}
	m.Has |= protocol.HasCorrelationID
	u.say(ctx, m, func() {
		u.note(clustertest.Requests, clustertest.Event{Name: a.name, ID: a.id, Note: kind, Version: version, Data: data})
	})
}

// actOnRecords makes one request. Of those that are answered by name alone a client
// makes one at a time for a name.
func actOnRecords(u *chaosClient, ctx context.Context) {
	name := recordName(u.r)
	n := u.r.IntN(20)
	if _, waits := u.pending[name]; waits {
		n = 19
	}
	single := protocol.Message{Has: protocol.HasName, Name: name}
	bulk := protocol.Message{Names: []string{name}}
	switch {
	case n < 4:
		single.Action = protocol.RecordRead
		u.requests(ctx, clustertest.Read, &single, 0, "")
	case n < 5:
		single.Action = protocol.RecordHead
		u.requests(ctx, clustertest.Head, &single, 0, "")
	case n < 8 && !u.follows[name]:
		u.follows[name] = true
		bulk.Action = protocol.RecordSubscribeCreateAndRead
		u.requests(ctx, clustertest.Create, &bulk, 0, "")
	case n < 7 && u.follows[name]:
		delete(u.follows, name)
		bulk.Topic, bulk.Action, bulk.CorrelationID, bulk.Has = protocol.TopicRecord, protocol.RecordUnsubscribe, name, protocol.HasCorrelationID
		u.note(clustertest.Unfollows, clustertest.Event{Name: name})
		u.ended[name] = true
		u.say(ctx, &bulk, nil)
	case n < 9 && strings.HasPrefix(name, "d") && !u.follows[name]:
		single.Action = protocol.RecordDelete
		u.requests(ctx, clustertest.Delete, &single, 0, "")
	default:
		u.write(ctx, &single)
	}
}

// write changes a record: all of it, or its only field.
func (u *chaosClient) write(ctx context.Context, m *protocol.Message) {
	version := u.known[m.Name] + 1
	if u.r.IntN(3) == 0 {
		version = -1
	}
	id := u.chaos.net.History.NewID()
	m.Action, m.Data = protocol.RecordCreateAndUpdate, recordData(id)
	if u.r.IntN(3) == 0 {
		m.Action, m.Path, m.Data = protocol.RecordCreateAndPatch, "v", strconv.FormatUint(id, 10)
		m.Has |= protocol.HasPath
	}
	m.Version = version
	m.Has |= protocol.HasVersion | protocol.HasData
	u.requests(ctx, clustertest.Write, m, version, recordData(id))
}

// responds notes the answer to a request.
func (u *chaosClient) responds(a asking, note string, m *protocol.Message) {
	u.note(clustertest.Responds, clustertest.Event{Name: a.name, ID: a.id, Note: note, Version: m.Version, Data: m.Data})
}

// outcome is what an error of a write says about it.
func outcome(m *protocol.Message) string {
	for _, nothing := range []string{"nothing was written", "does not accept writes", "nobody serves", "cut off from the cluster"} {
		if strings.Contains(m.Data, nothing) {
			return clustertest.Nothing
		}
	}
	return clustertest.Unsure
}

func hearRecords(u *chaosClient, ctx context.Context, m *protocol.Message) {
	if a, ok := u.writes[m.CorrelationID]; ok && m.Name == a.name {
		switch m.Action {
		case protocol.RecordWriteAcknowledgement:
			u.responds(a, clustertest.Acked, m)
		case protocol.RecordVersionExists:
			u.known[a.name] = m.Version
			u.responds(a, clustertest.Exists, m)
		case protocol.RecordInvalidVersion:
			u.known[a.name] = m.Version
			u.responds(a, clustertest.Ahead, &protocol.Message{Version: m.Version})
		case protocol.RecordRecordUpdateError:
			u.responds(a, outcome(m), &protocol.Message{Data: m.Data})
		default:
			u.chaos.fail("%s gets %s for a write", u.c.name, m.Action.Name(protocol.TopicRecord))
		}
		delete(u.writes, m.CorrelationID)
		return
	}
	switch m.Action {
	case protocol.RecordUpdate, protocol.RecordPatch:
		u.update(m)
		return
	case protocol.RecordDeleted:
		if u.follows[m.Name] {
			delete(u.follows, m.Name)
			u.note(clustertest.Unfollows, clustertest.Event{Name: m.Name})
		}
		if u.wants[m.Name] { // a node that was not sure whether there had been a record
			delete(u.wants, m.Name)
			u.note(clustertest.Unsubscribes, clustertest.Event{Name: m.Name})
		}
		return
	case protocol.RecordUnsubscribe:
		delete(u.ended, m.CorrelationID)
		return
	}
	if m.IsError && m.OriginalAction == protocol.RecordSubscribe && u.wants[m.Name] {
		delete(u.wants, m.Name) // there was nobody to subscribe at
	}
	recordListening.hear(u, ctx, m)
	a, ok := u.pending[m.Name]
	if !ok {
		return
	}
	reading := a.note == clustertest.Read || a.note == clustertest.Create
	switch {
	case m.Action == protocol.RecordReadResponse && reading:
		u.known[a.name] = m.Version
		u.responds(a, clustertest.Value, m)
		if a.note == clustertest.Create {
			u.note(clustertest.Follows, clustertest.Event{Name: a.name, Version: m.Version, Data: m.Data})
		}
	case m.Action == protocol.RecordRecordNotFound && reading:
		u.known[a.name] = 0
		u.responds(a, clustertest.Missing, &protocol.Message{})
	case m.Action == protocol.RecordHeadResponse && a.note == clustertest.Head:
		if m.Version < 0 {
			u.responds(a, clustertest.Missing, &protocol.Message{})
		} else {
			u.responds(a, clustertest.Value, m)
		}
	case m.Action == protocol.RecordDeleteSuccess && a.note == clustertest.Delete:
		u.responds(a, clustertest.Gone, &protocol.Message{})
	case m.Action == protocol.RecordRecordLoadError, m.Action == protocol.RecordStorageRetrievalTimeout,
		m.Action == protocol.RecordRecordCreateError, m.Action == protocol.RecordRecordDeleteError:
		if a.note == clustertest.Create {
			delete(u.follows, a.name)
		}
		u.responds(a, clustertest.Unsure, &protocol.Message{Data: m.Action.Name(protocol.TopicRecord)})
	case m.Action == protocol.RecordMultipleSubscriptions:
		return // beside the answer
	default:
		return // whether there is a provider
	}
	delete(u.pending, m.Name)
}

// update takes an update.
func (u *chaosClient) update(m *protocol.Message) {
	if !u.follows[m.Name] || u.pending[m.Name].note == clustertest.Create {
		if !u.ended[m.Name] {
			// The verifier will find it.
			u.note(clustertest.Live, clustertest.Event{Name: m.Name, Version: m.Version, Data: m.Data, Note: "not subscribed"})
		}
		return
	}
	e := clustertest.Event{Name: m.Name, Version: m.Version, Data: m.Data}
	if m.Action == protocol.RecordPatch {
		e.Note, e.Data = clustertest.Patch, fmt.Sprintf(`{"v":%s}`, m.Data)
	}
	u.known[m.Name] = m.Version
	u.note(clustertest.Live, e)
}

// storeFaults are what may happen to the logs.
func (c *chaos) storeFaults() []func(*rand.Rand) (string, func()) {
	pick := func(r *rand.Rand) (int, *storetest.Replicated) {
		p := r.IntN(len(c.logs))
		return p, c.logs[p]
	}
	return []func(*rand.Rand) (string, func()){
		func(r *rand.Rand) (string, func()) {
			p, log := pick(r)
			d := time.Duration(r.IntN(1000)) * time.Millisecond
			log.Stall(d)
			return fmt.Sprintf("log %d stalls for %v", p, d), nil
		},
		func(r *rand.Rand) (string, func()) {
			p, log := pick(r)
			log.Fill(true)
			return fmt.Sprintf("log %d is full", p), func() { log.Fill(false) }
		},
		func(r *rand.Rand) (string, func()) {
			for _, log := range c.logs {
				log.Doubt(0.2)
			}
			return "appends are in doubt", func() {
				for _, log := range c.logs {
					log.Doubt(0)
				}
			}
		},
	}
}

// noteTruth notes what the logs hold.
func (c *chaos) noteTruth() {
	truth := make(map[string]clustertest.Event)
	for _, log := range c.logs {
		for name, r := range log.Truth() {
			truth[name] = clustertest.Event{What: clustertest.Truth, Name: name, Version: r.Version, Data: r.Data, OK: true}
		}
	}
	for i := range 10 {
		for _, kind := range []string{"r", "d"} {
			name := fmt.Sprint(kind, i)
			e, ok := truth[name]
			if !ok {
				e = clustertest.Event{What: clustertest.Truth, Name: name}
			}
			c.note(e)
		}
	}
}
