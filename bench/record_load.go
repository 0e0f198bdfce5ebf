package bench

import (
	"context"
	"fmt"

	"hadal/bench/target"
	"hadal/protocol"
)

// recordScenarios are writers of records.
var recordScenarios = []Scenario{
	{Name: "record-write", Text: "100 writers with a record and a subscriber each, without acks", Unit: "write", Clients: 100, Window: 4,
		new: func() driver { return &writes{} }},
	{Name: "record-write-ack", Text: "100 writers with a record and a subscriber each; every write is acknowledged", Unit: "write", Clients: 100, Window: 4,
		new: func() driver { return &writes{acked: true} }},
	{Name: "record-write-ack/uniform", Text: "100 writers with 100 records each, which are there, written in turn and acknowledged; nobody subscribed", Unit: "write", Clients: 100, Window: 4,
		new: func() driver { return &writes{acked: true, each: 100} }},
	{Name: "cluster-write", Text: "100 writers on 3 nodes, a record and a subscriber on the next node each; every write is acknowledged", Unit: "write", Clients: 100, Window: 4, Nodes: 3,
		new: func() driver { return &writes{acked: true} }},
}

// writes has writers with records of their own.
type writes struct {
	sends
	acked bool // the window is that of acknowledgements, else that of what subscribers hear
	each  int  // records of a writer, which are there; with 0 one, with a subscriber
}

func (w writes) setup(ctx context.Context, l *load) error {
	writers, err := l.connect(ctx, "w", l.clients)
	if err != nil {
		return err
	}
	err = each(len(writers), len(writers), func(i int) error {
		if w.each == 0 {
			return nil
		}
		return writers[i].Exchange(w.each, 4, protocol.RecordWriteAcknowledgement, func(k int) {
			m := l.write(recordName(i, k), true)
			m.CorrelationID = "1"
			writers[i].Queue(m)
		}, nil)
	})
	if err != nil {
		return fmt.Errorf("create the records: %w", err)
	}
	streams := make([]*stream, len(writers))
	for i, c := range writers {
		s := l.newSender(c)
		r := l.newReceiver(c)
		for k := range max(w.each, 1) {
			st := l.newStream(s, l.write(recordName(i, k), w.acked))
			if w.acked {
				r.expect(st)
			}
		}
		streams[i] = s.streams[0]
		l.goes(func() error { return r.listen(r.acks) })
	}
	if w.each > 0 {
		return nil
	}
	// One more than the writers: each subscriber is at the node after that of its writer.
	subscribers, err := l.connect(ctx, "s", len(writers)+1)
	if err != nil {
		return err
	}
	for i, st := range streams {
		if err := l.subscribeRecord(subscribers[i+1], recordName(i, 0), st, w.acked); err != nil {
			return err
		}
	}
	return nil
}

// write is a message that writes a record, whatever its version.
func (l *load) write(name string, acked bool) *protocol.Message {
	m := &protocol.Message{
		Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: name, Version: -1,
		Data: l.data(true), Has: protocol.HasVersion, IsWriteAck: acked,
	}
	if acked {
		m.CorrelationID = placeholder
	}
	return m
}

func recordName(writer, i int) string { return fmt.Sprintf("bench/record/%d/%d", writer, i) }

// acks is a listener of a writer: the correlation id of an acknowledgement is the stamp.
func (r *receiver) acks(m *protocol.Message) error {
	if m.Topic != protocol.TopicRecord || m.Action != protocol.RecordWriteAcknowledgement {
		return nil
	}
	st, err := readStamp(m.CorrelationID)
	if err != nil {
		return fmt.Errorf("an acknowledgement for %q: %w", m.Name, err)
	}
	return r.got(st)
}

// subscribeRecord has a client subscribe to a record that is written in a stream, and
// listen. Beside means that what it hears does not count.
func (l *load) subscribeRecord(c *target.Client, name string, st *stream, beside bool) error {
	r := l.newReceiver(c)
	if beside {
		r.expectBeside(st)
	} else {
		r.expect(st)
	}
	if err := subscribe(c, protocol.TopicRecord, name); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	hears := r.hears(protocol.TopicRecord, protocol.RecordUpdate, protocol.RecordPatch, protocol.RecordCreateAndUpdate, protocol.RecordCreateAndPatch)
	l.goes(func() error { return r.listen(hears) })
	return nil
}
