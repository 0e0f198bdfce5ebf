package bench

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"hadal/bench/target"
	"hadal/protocol"
)

// conflictScenarios are writers that race for one record.
var conflictScenarios = []Scenario{
	{Name: "record-conflict", Text: "20 writers race for the next version of one record; a message is a write that won", Unit: "write", Clients: 20, Window: 1,
		new: func() driver { return &conflict{} }},
}

const conflictName = "bench/conflict"

// conflict has each writer write under the version that it thinks is next.
type conflict struct {
	writers   []*target.Client
	won, lost atomic.Int64
	first     int32 // version of the record
}

func (d *conflict) setup(ctx context.Context, l *load) (err error) {
	d.writers, err = l.connect(ctx, "w", l.clients)
	if err != nil {
		return err
	}
	d.first = 1
	m := d.write(l, 0, 1, d.first)
	return ask(d.writers[0], m, protocol.RecordWriteAcknowledgement)
}

func (d *conflict) write(l *load, writer, turn int, version int32) *protocol.Message {
	m := l.write(conflictName, true)
	m.Version, m.CorrelationID = version, strconv.Itoa(turn)
	if version > 1 {
		m.Action = protocol.RecordUpdate
	}
	m.Data = fmt.Sprintf(`{"writer":%d,"turn":%d}`, writer, turn)
	return m
}

func (d *conflict) drive(ctx context.Context, l *load) error {
	errs := make([]error, len(d.writers))
	var wg sync.WaitGroup
	for i := range d.writers {
		wg.Go(func() { errs[i] = d.race(ctx, l, i) })
	}
	wg.Wait()
	return firstOf(errs)
}

// race is one writer, until ctx ends.
func (d *conflict) race(ctx context.Context, l *load, writer int) error {
	c := d.writers[writer]
	version := d.first + 1
	began := clock()
	for turn := 2; ctx.Err() == nil; turn++ {
		if err := c.Say(d.write(l, writer, turn, version)); err != nil {
			return err
		}
		m, err := c.Hear()
		for err == nil && m.Topic == protocol.TopicConnection {
			m, err = c.Hear()
		}
		switch {
		case err != nil:
			return err
		case m.Action == protocol.RecordWriteAcknowledgement && !m.IsError:
			d.won.Add(1)
			l.done(writer, clock()-began)
			version++
			began = clock()
		case m.Action == protocol.RecordVersionExists:
			d.lost.Add(1)
			version = m.Version + 1
		default:
			return fmt.Errorf("a racing write was answered %s", m.Action.Name(m.Topic))
		}
	}
	return nil
}

// check sees that the record has as many versions as writes were acknowledged: none is
// lost, and none was given away twice.
func (d *conflict) check(_ context.Context, l *load) error {
	c := d.writers[0]
	if err := c.Say(&protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: conflictName}); err != nil {
		return err
	}
	m, err := c.Until(protocol.RecordReadResponse)
	if err != nil {
		return err
	}
	won, lost := d.won.Load(), d.lost.Load()
	l.fact("attempts a write", float64(won+lost)/float64(max(won, 1)), "")
	if got, want := int64(m.Version-d.first), won; got != want {
		return fmt.Errorf("%d writes were acknowledged, and the record has %d versions more than before", want, got)
	}
	return nil
}
