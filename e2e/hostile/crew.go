package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"hadal/bench/target"
	"hadal/protocol"
)

// answerTime is how long the answer to a well-behaved request may take before it
// counts as lost.
const answerTime = 20 * time.Second

// The streams of a crew.
const (
	events  = "events"
	writes  = "writes"
	calls   = "rpcs"
	logins  = "logins"
	healths = "health"
)

var kinds = []string{events, writes, calls, logins, healths}

// stream is one kind of request, sent at a steady rate whether or not those before
// it are answered: so what takes long is not asked less often.
type stream struct {
	kind  string
	every time.Duration

	mu   sync.Mutex
	due  map[int]time.Time // requests under way, and when they were due; guarded by mu
	sent int               // guarded by mu
	took []time.Duration   // guarded by mu
	errs []error           // guarded by mu
	idle chan struct{}     // holds one when due has become empty
}

func (s *stream) answered(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if due, ok := s.due[i]; ok {
		s.took = append(s.took, time.Since(due))
		delete(s.due, i)
	}
	if len(s.due) == 0 {
		select {
		case s.idle <- struct{}{}:
		default:
		}
	}
}

func (s *stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = append(s.errs, err)
}

// drive asks until over is closed, and then waits for the answers.
func (s *stream) drive(over <-chan struct{}, ask func(i int) error) {
	due := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := 0; ; i++ {
		select {
		case <-over:
			s.wait()
			return
		case <-timer.C:
		}
		s.mu.Lock()
		s.due[i] = due
		s.sent++
		s.mu.Unlock()
		if err := ask(i); err != nil {
			s.fail(err)
			return
		}
		due = due.Add(s.every)
		timer.Reset(time.Until(due))
	}
}

// wait waits for what is under way.
func (s *stream) wait() {
	limit := time.After(answerTime)
	for {
		s.mu.Lock()
		n := len(s.due)
		s.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-s.idle:
		case <-limit:
			return
		}
	}
}

// quantile is how long that part of the answers took at most, in milliseconds.
func (s *stream) quantile(q float64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.took) == 0 {
		return "-"
	}
	slices.Sort(s.took)
	d := s.took[int(q*float64(len(s.took)-1))]
	return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000)
}

// crew is the well-behaved clients.
type crew struct {
	url     string
	streams []*stream
	over    chan struct{}
	cancel  context.CancelFunc
	ctx     context.Context // of requests that are made one by one
	clients []*target.Client
	drivers sync.WaitGroup
	readers sync.WaitGroup

	publisher, subscriber, writer, caller, provider *target.Client
}

// newCrew logs everybody in, from an address of their own.
func newCrew(ctx context.Context, url string) (*crew, error) {
	c := &crew{url: url, over: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(ctx)
	for _, kind := range kinds {
		s := &stream{kind: kind, every: 10 * time.Millisecond, due: make(map[int]time.Time), idle: make(chan struct{}, 1)}
		if kind == logins || kind == healths {
			s.every = 100 * time.Millisecond
		}
		c.streams = append(c.streams, s)
	}
	for name, at := range map[string]**target.Client{
		"publisher": &c.publisher, "subscriber": &c.subscriber, "writer": &c.writer, "caller": &c.caller, "provider": &c.provider,
	} {
		cl, err := login(ctx, from(1), url, name)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		*at = cl
		c.clients = append(c.clients, cl)
	}
	for _, ask := range []struct {
		c *target.Client
		m protocol.Message
	}{
		{c.subscriber, protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"good"}}},
		{c.provider, protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{"good"}}},
	} {
		if err := ask.c.Say(&ask.m); err != nil {
			return nil, errors.Join(err, c.close())
		}
		if _, err := ask.c.Until(ask.m.Action); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	return c, nil
}

// close ends the clients.
func (c *crew) close() error {
	var errs []error
	for _, cl := range c.clients {
		errs = append(errs, cl.Close())
	}
	return errors.Join(errs...)
}

// begin has everybody work.
func (c *crew) begin() {
	event, write, call, guest, health := c.streams[0], c.streams[1], c.streams[2], c.streams[3], c.streams[4]
	c.read(event, c.subscriber, protocol.EventEmit, func(m *protocol.Message) string { return m.Data })
	c.drive(event, func(i int) error {
		return c.publisher.Say(&protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "good", Data: strconv.Itoa(i), Has: protocol.HasData})
	})
	c.read(write, c.writer, protocol.RecordWriteAcknowledgement, func(m *protocol.Message) string { return m.CorrelationID })
	c.drive(write, func(i int) error {
		return c.writer.Say(&protocol.Message{
			Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: "good/" + strconv.Itoa(i%16), Version: -1,
			Data: `{"i":` + strconv.Itoa(i) + `}`, CorrelationID: strconv.Itoa(i), IsWriteAck: true,
			Has: protocol.HasData | protocol.HasVersion | protocol.HasCorrelationID,
		})
	})
	c.readers.Go(func() { _ = answerCalls(c.provider) }) // the caller learns of it
	c.read(call, c.caller, protocol.RPCResponse, func(m *protocol.Message) string { return m.CorrelationID })
	c.drive(call, func(i int) error {
		return c.caller.Say(&protocol.Message{
			Topic: protocol.TopicRPC, Action: protocol.RPCRequest, Name: "good", CorrelationID: strconv.Itoa(i), Data: "1",
			Has: protocol.HasData | protocol.HasCorrelationID,
		})
	})
	c.driveEach(guest, func(ctx context.Context, i int) error {
		cl, err := login(ctx, from(1), c.url, "guest"+strconv.Itoa(i))
		if err != nil {
			return err
		}
		return cl.Close()
	})
	web := &http.Client{Timeout: answerTime, Transport: &http.Transport{DisableKeepAlives: true, DialContext: from(1).DialContext}}
	readyz := "http" + strings.TrimPrefix(strings.TrimSuffix(c.url, "/deepstream"), "ws") + "/readyz"
	c.driveEach(health, func(ctx context.Context, _ int) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, readyz, nil)
		if err != nil {
			return err
		}
		res, err := web.Do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusOK {
			err = errors.Join(err, fmt.Errorf("%s: %s", res.Status, text))
		}
		return errors.Join(err, res.Body.Close())
	})
}

func (c *crew) drive(s *stream, ask func(i int) error) {
	c.drivers.Go(func() { s.drive(c.over, ask) })
}

// driveEach makes requests that have a connection each. Who is turned away comes
// again, as all clients do.
func (c *crew) driveEach(s *stream, do func(ctx context.Context, i int) error) {
	var each sync.WaitGroup
	c.drive(s, func(i int) error {
		each.Go(func() {
			ctx, cancel := context.WithTimeout(c.ctx, answerTime)
			defer cancel()
			for {
				err := do(ctx, i)
				if err == nil {
					s.answered(i)
					return
				}
				if target.Pause(ctx, 100*time.Millisecond) != nil {
					s.fail(err)
					return
				}
			}
		})
		return nil
	})
	c.readers.Go(func() {
		<-c.ctx.Done()
		each.Wait()
	})
}

// read takes the answers of a stream; id says to which request one belongs.
func (c *crew) read(s *stream, cl *target.Client, action protocol.Action, id func(*protocol.Message) string) {
	c.readers.Go(func() {
		for {
			m, err := cl.Until(action)
			if err == nil {
				var i int
				if i, err = strconv.Atoi(id(m)); err == nil {
					s.answered(i)
					continue
				}
			}
			if c.ctx.Err() == nil {
				s.fail(err)
			}
			return
		}
	})
}

// answerCalls accepts and answers every call.
func answerCalls(cl *target.Client) error {
	for {
		m, err := cl.Until(protocol.RPCRequest)
		if err != nil {
			return err
		}
		answer := protocol.Message{
			Topic: protocol.TopicRPC, Action: protocol.RPCAccept, Name: m.Name, CorrelationID: m.CorrelationID, Has: protocol.HasCorrelationID,
		}
		cl.Queue(&answer)
		answer.Action, answer.Data, answer.Has = protocol.RPCResponse, "1", protocol.HasCorrelationID|protocol.HasData
		cl.Queue(&answer)
		if err := cl.Flush(); err != nil {
			return err
		}
	}
}

// end stops asking, waits for the answers and closes the clients.
func (c *crew) end() error {
	close(c.over)
	c.drivers.Wait()
	c.cancel()
	err := c.close()
	c.readers.Wait()
	return err
}
