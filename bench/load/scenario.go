package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hadal/protocol"
)

// scenario is one kind of load.
type scenario struct {
	name, text string
	run        func(ctx context.Context, s settings, m *meter) error
}

var scenarios = []scenario{
	{"fanout", "events from 1 publisher to all subscribers, 32 in flight; a delivery is a message", fanout(32)},
	{"fanout-1", "the same with 1 in flight", fanout(1)},
	{"pairs", "500 publishers with a subscriber each, 1 event in flight each", pairs},
	{"write", "record writes without ack, 10 clients with 40 in flight each (a HEAD behind every 40)", writes(false)},
	{"write-ack", "record writes with ack, 100 clients with 4 in flight each", writes(true)},
	{"rpc", "50 callers of 50 procedures, 1 call in flight each", rpcs},
	{"idle", "connections that logged in and do nothing", idle},
}

// payload is 64 bytes of JSON.
var payload = `"` + strings.Repeat("x", 62) + `"`

// crew runs goroutines and keeps the first error that matters.
type crew struct {
	wg      sync.WaitGroup
	ending  atomic.Bool
	over    chan struct{} // closed when ending
	clients []*client
	errs    chan error
}

func newCrew() *crew { return &crew{over: make(chan struct{}), errs: make(chan error, 1)} }

func (c *crew) run(f func() error) {
	c.wg.Go(func() {
		if err := f(); err != nil && !c.ending.Load() {
			select {
			case c.errs <- err:
			default:
			}
		}
	})
}

// connect makes n clients, several at a time.
func (c *crew) connect(ctx context.Context, s settings, prefix string, n int) ([]*client, error) {
	made := make([]*client, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 32)
	for i := range n {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			made[i], errs[i] = connect(ctx, s.url, prefix+strconv.Itoa(i))
		})
	}
	wg.Wait()
	for _, cl := range made {
		if cl != nil {
			c.clients = append(c.clients, cl)
		}
	}
	return made, errors.Join(errs...)
}

// end closes everything and waits.
func (c *crew) end() error {
	c.ending.Store(true)
	close(c.over)
	for _, cl := range c.clients {
		_ = cl.nc.Close() // being the end, not a failure
	}
	c.wg.Wait()
	select {
	case err := <-c.errs:
		return err
	default:
		return nil
	}
}

func event(a protocol.Action, name string) *protocol.Message {
	m := &protocol.Message{Topic: protocol.TopicEvent, Action: a}
	if a == protocol.EventEmit {
		m.Name, m.Data = name, payload
		return m
	}
	m.Names, m.CorrelationID = []string{name}, "0"
	return m
}

func fanout(window int) func(context.Context, settings, *meter) error {
	return func(ctx context.Context, s settings, m *meter) (err error) {
		c := newCrew()
		defer func() { err = errors.Join(err, c.end()) }()
		subscribers, err := c.connect(ctx, s, "s", s.count)
		if err != nil {
			return err
		}
		publisher, err := c.connect(ctx, s, "p", 1)
		if err != nil {
			return err
		}
		// left counts who has not got a message yet; messages come back in order,
		// so the window is a ring.
		left := make([]atomic.Int64, window)
		sent := make([]atomic.Int64, window)
		free := make(chan struct{}, window)
		for range window {
			free <- struct{}{}
		}
		for _, sub := range subscribers {
			if err := sub.say(event(protocol.EventSubscribe, "e")); err != nil {
				return err
			}
			if err := sub.until(protocol.EventSubscribe); err != nil {
				return err
			}
			c.run(func() error {
				for i := 0; ; i++ {
					if err := sub.until(protocol.EventEmit); err != nil {
						return err
					}
					at := i % window
					if left[at].Add(-1) == 0 {
						m.done(s.count, time.UnixMicro(sent[at].Load()))
						free <- struct{}{}
					}
				}
			})
		}
		c.run(func() error {
			for i := 0; ; {
				for more := false; !more; { // all that is free, in one write
					select {
					case <-free:
					case <-c.over:
						return nil
					}
					left[i%window].Store(int64(s.count))
					sent[i%window].Store(time.Now().UnixMicro())
					publisher[0].queue(event(protocol.EventEmit, "e"))
					i++
					more = len(free) == 0
				}
				if err := publisher[0].flush(); err != nil {
					return err
				}
			}
		})
		return m.measure(ctx)
	}
}

func pairs(ctx context.Context, s settings, m *meter) (err error) {
	const n = 500
	c := newCrew()
	defer func() { err = errors.Join(err, c.end()) }()
	subscribers, err := c.connect(ctx, s, "s", n)
	if err != nil {
		return err
	}
	publishers, err := c.connect(ctx, s, "p", n)
	if err != nil {
		return err
	}
	for i, sub := range subscribers {
		name := "e" + strconv.Itoa(i)
		if err := sub.say(event(protocol.EventSubscribe, name)); err != nil {
			return err
		}
		if err := sub.until(protocol.EventSubscribe); err != nil {
			return err
		}
		c.run(func() error {
			emit := event(protocol.EventEmit, name)
			for {
				began := time.Now()
				if err := publishers[i].say(emit); err != nil {
					return err
				}
				if err := sub.until(protocol.EventEmit); err != nil {
					return err
				}
				m.done(1, began)
			}
		})
	}
	return m.measure(ctx)
}

func writes(ack bool) func(context.Context, settings, *meter) error {
	return func(ctx context.Context, s settings, m *meter) (err error) {
		clients, window := 10, 40
		if ack {
			clients, window = 100, 4
		}
		c := newCrew()
		defer func() { err = errors.Join(err, c.end()) }()
		writers, err := c.connect(ctx, s, "w", clients)
		if err != nil {
			return err
		}
		for i, w := range writers {
			c.run(func() error { return writeLoop(w, fmt.Sprintf("load/%d", i), window, ack, m) })
		}
		return m.measure(ctx)
	}
}

// writeLoop keeps window writes in flight. Without acks the answer to a HEAD
// says that the writes before it are done.
func writeLoop(w *client, name string, window int, ack bool, m *meter) error {
	data := `{"text":` + payload + `,"n":`
	for n := 0; ; {
		began := time.Now()
		for range window {
			n++
			msg := protocol.Message{
				Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: name, Version: -1,
				Data: data + strconv.Itoa(n) + "}", Has: protocol.HasVersion, IsWriteAck: ack,
			}
			if ack {
				msg.CorrelationID = strconv.Itoa(n)
			}
			w.queue(&msg)
		}
		answers, action := window, protocol.RecordWriteAcknowledgement
		if !ack {
			w.queue(&protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordHead, Name: name})
			answers, action = 1, protocol.RecordHeadResponse
		}
		if err := w.flush(); err != nil {
			return err
		}
		for range answers {
			if err := w.until(action); err != nil {
				return err
			}
			m.done(window/answers, began)
		}
	}
}

func rpcs(ctx context.Context, s settings, m *meter) (err error) {
	const n = 50
	c := newCrew()
	defer func() { err = errors.Join(err, c.end()) }()
	providers, err := c.connect(ctx, s, "p", n)
	if err != nil {
		return err
	}
	callers, err := c.connect(ctx, s, "c", n)
	if err != nil {
		return err
	}
	for i, p := range providers {
		name := "f" + strconv.Itoa(i)
		err := p.say(&protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{name}, CorrelationID: "0"})
		if err != nil {
			return err
		}
		if err := p.until(protocol.RPCProvide); err != nil {
			return err
		}
		c.run(func() error { return provide(p) })
		c.run(func() error {
			for id := 0; ; id++ {
				began := time.Now()
				call := &protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCRequest, Name: name, CorrelationID: fmt.Sprint(i, "-", id), Data: payload}
				if err := callers[i].say(call); err != nil {
					return err
				}
				if err := callers[i].until(protocol.RPCResponse); err != nil {
					return err
				}
				m.done(1, began)
			}
		})
	}
	return m.measure(ctx)
}

// provide accepts and answers every call, as the official client does: in two
// messages.
func provide(p *client) error {
	for {
		if err := p.until(protocol.RPCRequest); err != nil {
			return err
		}
		answer := protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCAccept, Name: p.msg.Name, CorrelationID: p.msg.CorrelationID}
		p.queue(&answer)
		answer.Action, answer.Data = protocol.RPCResponse, payload
		p.queue(&answer)
		if err := p.flush(); err != nil {
			return err
		}
	}
}

func idle(ctx context.Context, s settings, m *meter) (err error) {
	c := newCrew()
	defer func() { err = errors.Join(err, c.end()) }()
	if _, err := c.connect(ctx, s, "warm", 100); err != nil {
		return err
	}
	before, cpu, began := rssOf(s.pid), cpuOf(s.pid), time.Now()
	if _, err := c.connect(ctx, s, "i", s.idle); err != nil {
		return err
	}
	took, used := time.Since(began), cpuOf(s.pid)-cpu
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	m.note = fmt.Sprintf("%d connections: %.1f KB each; %.0f logins/s, %.0f us server CPU each", s.idle,
		float64(rssOf(s.pid)-before)/1024/float64(s.idle), float64(s.idle)/took.Seconds(), float64(used.Microseconds())/float64(s.idle))
	return nil
}
