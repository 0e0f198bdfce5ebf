package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"hadal/bench/target"
	"hadal/node/admin"
	"hadal/protocol"
)

const (
	// inFlight is how many questions a client of a phase has in flight.
	inFlight = 50
	// bulk is how many names one subscription message holds.
	bulk = 500
)

// data is JSON of 200 bytes.
var data = `{"text":"` + strings.Repeat("x", 189) + `"}`

// share runs do for every i below n, on some workers, until one fails.
func share(ctx context.Context, workers, n int, do func(ctx context.Context, i int) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(workers, n) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(ctx, i); err != nil {
					stop(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// connects has clients come and go.
func connects(ctx context.Context, s settings, n *target.Node, p *progress) error {
	p.total.Store(int64(s.connects))
	return share(ctx, s.workers, s.connects, func(ctx context.Context, i int) error {
		if err := visit(ctx, n, i); err != nil {
			return fmt.Errorf("client %d: %w", i, err)
		}
		p.done.Add(1)
		return nil
	})
}

// visit is one client's life.
func visit(ctx context.Context, n *target.Node, i int) error {
	c, err := target.Connect(ctx, target.From(i), n.URL, fmt.Sprintf("soak%d", i))
	if err != nil {
		return err
	}
	if i%2 == 0 {
		err = settleIn(c, i)
	}
	switch i / 2 % 3 {
	case 0:
		return errors.Join(err, c.Leave())
	case 1:
		return errors.Join(err, c.Close())
	}
	return errors.Join(err, c.Reset())
}

// settleIn has a client do all that the node must forget with it.
func settleIn(c *target.Client, i int) error {
	id := strconv.Itoa(i)
	for _, m := range []protocol.Message{
		{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"soak/event", "soak/event/" + id}},
		{Topic: protocol.TopicEvent, Action: protocol.EventListen, Name: "nobody/" + id + "/.*"},
		{Topic: protocol.TopicRecord, Action: protocol.RecordListen, Name: "nobody/" + id + "/.*"},
		{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{"soak/rpc", "soak/rpc/" + id}},
		{Topic: protocol.TopicPresence, Action: protocol.PresenceSubscribeAll},
		{Topic: protocol.TopicRecord, Action: protocol.RecordSubscribe, Names: []string{"soak/none", "soak/none/" + id}},
	} {
		m.CorrelationID = id
		c.Queue(&m)
	}
	// The last one's answer: what one client asks of the record room comes last.
	if err := c.Flush(); err != nil {
		return err
	}
	_, err := c.Until(protocol.RecordSubscribe)
	return err
}

// records creates and deletes.
func records(ctx context.Context, s settings, n *target.Node, p *progress) error {
	p.total.Store(2 * int64(s.rounds) * int64(s.records))
	for round := range s.rounds {
		err := share(ctx, s.workers, s.workers, func(ctx context.Context, worker int) error {
			c, err := target.Connect(ctx, target.From(worker), n.URL, fmt.Sprintf("records%d", worker))
			if err != nil {
				return err
			}
			return errors.Join(createAndDelete(c, s, round, worker, p), c.Leave())
		})
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	return nil
}

// kept is how many records stay, beside those of a round.
func (s settings) kept() int { return max(s.records/10, 1) }

func keptName(i int) string { return "kept/" + strconv.Itoa(i) }

// keep creates the records that stay.
func keep(ctx context.Context, s settings, n *target.Node) error {
	c, err := target.Connect(ctx, target.From(0), n.URL, "keeper")
	if err != nil {
		return err
	}
	err = c.Exchange(s.kept(), 10*inFlight, protocol.RecordWriteAcknowledgement, func(i int) { create(c, keptName(i), i) }, nil)
	return errors.Join(err, c.Leave())
}

// checkKept sees that these records are there, and no others.
func checkKept(ctx context.Context, s settings, n *target.Node) error {
	c := admin.OverSocket(n.Socket)
	defer c.Close()
	missing := make(map[string]bool, s.kept())
	for i := range s.kept() {
		missing[keptName(i)] = true
	}
	var others int
	err := c.Names(ctx, "", func(name string) error {
		if !missing[name] {
			others++
		}
		delete(missing, name)
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("list records: %w", err)
	case len(missing) > 0 || others > 0:
		return fmt.Errorf("of %d records that stay %d are missing, and %d that were deleted are there", s.kept(), len(missing), others)
	}
	return nil
}

// create queues a write that asks for an ack.
func create(c *target.Client, name string, i int) {
	c.Queue(&protocol.Message{
		Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: name, Version: -1, Has: protocol.HasVersion,
		Data: data, IsWriteAck: true, CorrelationID: strconv.Itoa(i),
	})
}

// createAndDelete is one worker's part of a round.
func createAndDelete(c *target.Client, s settings, round, worker int, p *progress) error {
	mine := (s.records - worker + s.workers - 1) / s.workers
	if mine <= 0 {
		return nil
	}
	name := func(i int) string { return fmt.Sprintf("soak/%d/%d/%d", round, worker, i) }
	count := func(int) { p.done.Add(1) }
	err := c.Exchange(mine, inFlight, protocol.RecordWriteAcknowledgement, func(i int) { create(c, name(i), i) }, count)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	err = c.Exchange(mine, inFlight, protocol.RecordDeleteSuccess, func(i int) {
		c.Queue(&protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordDelete, Name: name(i), CorrelationID: strconv.Itoa(i)})
	}, count)
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

// subscriptions subscribes to events and records, gives half of them up and leaves
// with the others.
func subscriptions(ctx context.Context, s settings, n *target.Node, p *progress) error {
	p.total.Store(int64(s.rounds) * int64(s.subscriptions))
	chunks := (s.subscriptions + bulk - 1) / bulk
	for round := range s.rounds {
		err := share(ctx, s.workers, s.workers, func(ctx context.Context, worker int) error {
			c, err := target.Connect(ctx, target.From(worker), n.URL, fmt.Sprintf("subscriptions%d", worker))
			if err != nil {
				return err
			}
			for chunk := worker; chunk < chunks && err == nil; chunk += s.workers {
				err = subscribe(c, chunk, chunk/s.workers%2 == 0)
				p.done.Add(int64(min(bulk, s.subscriptions-chunk*bulk)))
			}
			if worker%2 == 0 {
				return errors.Join(err, c.Reset())
			}
			return errors.Join(err, c.Leave())
		})
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	return nil
}

// subscribe makes a chunk of subscriptions and perhaps drops it. Every other one is
// to events.
func subscribe(c *target.Client, chunk int, drop bool) error {
	m := protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordSubscribe, CorrelationID: strconv.Itoa(chunk)}
	end := protocol.RecordUnsubscribe
	if chunk%2 == 0 {
		m.Topic, m.Action, end = protocol.TopicEvent, protocol.EventSubscribe, protocol.EventUnsubscribe
	}
	for i := range bulk {
		m.Names = append(m.Names, fmt.Sprintf("soak/%d/%d", chunk, i))
	}
	for _, a := range []protocol.Action{m.Action, end} {
		if a == end && !drop {
			return nil
		}
		m.Action = a
		if err := c.Say(&m); err != nil {
			return err
		}
		if _, err := c.Until(a); err != nil {
			return err
		}
	}
	return nil
}
