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
			err := r.loop(writeAck, l.inFlight, len(r.names), nil)
			filling.Done()
			if err != nil {
				return err
			}
			return r.loop(l.kind, l.inFlight, 0, m)
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

// loop keeps questions in flight: when some have been answered, as many follow, in
// one write. It ends after so many, with all names in turn, or with 0 never, with
// names at random. Answers come in the order of the questions, as nothing has to
// be loaded; where it has to, in read, they nearly do.
func (r *recordClient) loop(k kind, inFlight, questions int, m *meter) error {
	sent := make([]time.Time, inFlight) // a ring
	answer, messages := protocol.RecordWriteAcknowledgement, 1
	switch k {
	case write:
		answer, messages = protocol.RecordHeadResponse, unanswered
	case read:
		answer = protocol.RecordReadResponse
	}
	asked, answered := 0, 0
	for questions == 0 || answered < questions {
		for ; asked < answered+inFlight && (questions == 0 || asked < questions); asked++ {
			sent[asked%inFlight] = time.Now()
			name := r.names[asked%len(r.names)]
			if questions == 0 {
				name = r.names[r.random.IntN(len(r.names))]
			}
			r.ask(k, name)
		}
		if err := r.Flush(); err != nil {
			return err
		}
		for first := true; answered < asked && (first || r.Waiting()); first = false {
			if _, err := r.Until(answer); err != nil {
				return err
			}
			if m != nil {
				m.done(messages, sent[answered%inFlight])
			}
			answered++
		}
	}
	return nil
}

func (r *recordClient) ask(k kind, name string) {
	switch k {
	case read:
		r.Queue(&protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: name})
	case writeAck:
		r.write(name, true)
	case write:
		for range unanswered - 1 {
			r.write(r.names[r.random.IntN(len(r.names))], false)
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
