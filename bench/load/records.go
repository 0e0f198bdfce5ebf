package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"hadal/bench/target"
	"hadal/protocol"
)

// kind is what the clients of a recordLoad do.
type kind int

const (
	write    kind = iota // without acks: the answer to a HEAD says that the writes before it are done
	writeAck             // each answered
	read
)

// unanswered is how many writes without ack stand before a HEAD.
const unanswered = 10

// Sizes of a recordLoad's set of names. Many are as many as the settings say.
const (
	hotNames  = 100
	manyNames = 0
)

// recordLoad is clients that keep a number of questions in flight, each with names
// of its own. Every name is written once before the load is measured.
type recordLoad struct {
	kind     kind
	clients  int
	inFlight int // questions of each client: a write with ack, a read, or unanswered writes
	names    int
}

func (l recordLoad) run(ctx context.Context, s settings, m *meter) (err error) {
	total := l.names
	if total == manyNames {
		total = max(s.names, l.clients)
	}
	c := newCrew()
	defer func() { err = errors.Join(err, c.end()) }()
	clients, err := c.connect(ctx, s, "r", l.clients)
	if err != nil {
		return err
	}
	var filling sync.WaitGroup
	for i, cl := range clients {
		r := &recordClient{Client: cl, random: rand.New(rand.NewPCG(1, uint64(i)))}
		for n := i; n < total; n += l.clients {
			r.names = append(r.names, fmt.Sprintf("load/%d", n))
		}
		filling.Add(1)
		c.run(func() error {
			err := r.fill(l.inFlight)
			filling.Done()
			if err != nil {
				return err
			}
			return r.loop(l.kind, l.inFlight, m)
		})
	}
	filling.Wait()
	return m.measure(ctx)
}

// recordClient is a client with its names.
type recordClient struct {
	*target.Client
	names  []string
	random *rand.Rand
	n      int // writes so far
}

// fill writes every name once.
func (r *recordClient) fill(inFlight int) error {
	return r.Exchange(len(r.names), inFlight, protocol.RecordWriteAcknowledgement, func(i int) { r.write(r.names[i], true) }, nil)
}

// loop keeps questions about names at random in flight for ever. Their answers
// come in order, because nothing has to be loaded; where it has to, in read, they
// nearly do.
func (r *recordClient) loop(k kind, inFlight int, m *meter) error {
	answer, messages := protocol.RecordWriteAcknowledgement, 1
	switch k {
	case write:
		answer, messages = protocol.RecordHeadResponse, unanswered
	case read:
		answer = protocol.RecordReadResponse
	}
	sent := make([]time.Time, inFlight) // a ring
	return r.Exchange(0, inFlight, answer, func(i int) {
		sent[i%inFlight] = time.Now()
		r.ask(k)
	}, func(i int) { m.done(messages, sent[i%inFlight]) })
}

func (r *recordClient) any() string { return r.names[r.random.IntN(len(r.names))] }

func (r *recordClient) ask(k kind) {
	name := r.any()
	switch k {
	case read:
		r.Queue(&protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: name})
	case writeAck:
		r.write(name, true)
	case write:
		for range unanswered - 1 {
			r.write(r.any(), false)
		}
		r.write(name, false)
		r.Queue(&protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordHead, Name: name})
	}
}

func (r *recordClient) write(name string, ack bool) {
	r.n++
	msg := protocol.Message{
		Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: name, Version: -1,
		Data: `{"text":` + payload + `,"n":` + strconv.Itoa(r.n) + "}", Has: protocol.HasVersion, IsWriteAck: ack,
	}
	if ack {
		msg.CorrelationID = strconv.Itoa(r.n)
	}
	r.Queue(&msg)
}
