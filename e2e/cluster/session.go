//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"hadal/bench/target"
	"hadal/protocol"
)

// answerIn is how long a node that runs and can be reached may take to answer. Pauses
// and partitions are shorter.
const answerIn = 20 * time.Second

// errUnanswered is what a request ends with that was not answered in that time.
var errUnanswered = fmt.Errorf("no answer in %v", answerIn)

// session is a logged-in client that asks one thing at a time. After an error it is
// of no use any more.
type session struct {
	conn *target.Client
	at   *node
}

// dial connects to a node.
func dial(ctx context.Context, n *node, user string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := target.Connect(ctx, &net.Dialer{}, n.url(), user)
	if err != nil {
		return nil, err
	}
	return &session{conn, n}, nil
}

func (s *session) close() { _ = s.conn.Close() } // whoever closes has no more to say

// ask puts a question and waits for the answer. An error says that there is none, and
// ends the session; an error that the node answers with is an unknown outcome and its
// action.
func (s *session) ask(q question) (a answer, said protocol.Action, err error) {
	if err := s.conn.SetDeadline(time.Now().Add(answerIn)); err != nil {
		return a, 0, err
	}
	m := q.message()
	if err := s.conn.Say(&m); err != nil {
		return a, 0, late(err)
	}
	got, err := s.conn.Hear()
	switch {
	case err != nil:
		return a, 0, late(err)
	case got.Topic != protocol.TopicRecord:
		return a, 0, fmt.Errorf("heard %s %s", got.Topic, got.Action.Name(got.Topic))
	case got.Name != q.name:
		return a, 0, fmt.Errorf("heard of %q instead of %q", got.Name, q.name)
	}
	return q.answer(got), got.Action, nil
}

func late(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errUnanswered
	}
	return err
}

// message is how the question is put.
func (q question) message() protocol.Message {
	m := protocol.Message{Topic: protocol.TopicRecord, Name: q.name, Has: protocol.HasName}
	switch q.kind {
	case read:
		m.Action = protocol.RecordRead
	case head:
		m.Action = protocol.RecordHead
	case remove:
		m.Action = protocol.RecordDelete
	case write:
		m.Action = protocol.RecordCreateAndUpdate
		if q.plain {
			m.Action = protocol.RecordUpdate
		}
		m.Data = fmt.Sprintf(`{"w":%q,"p":%q}`, q.value, q.value)
	case patch:
		m.Action, m.Path = protocol.RecordCreateAndPatch, "p"
		if q.plain {
			m.Action = protocol.RecordPatch
		}
		m.Data = fmt.Sprintf(`%q`, q.value)
		m.Has |= protocol.HasPath
	}
	if q.kind == write || q.kind == patch {
		m.IsWriteAck, m.CorrelationID, m.Version = true, "1", q.version
		m.Has |= protocol.HasData | protocol.HasVersion | protocol.HasCorrelationID
	}
	return m
}

// answer is what a message says to the question.
func (q question) answer(m *protocol.Message) answer {
	shown := stateOf(m)
	switch {
	case m.Action == protocol.RecordReadResponse && q.kind == read:
		return answer{done, shown}
	case m.Action == protocol.RecordHeadResponse && q.kind == head && m.Version <= 0:
		return answer{outcome: missing}
	case m.Action == protocol.RecordHeadResponse && q.kind == head:
		return answer{done, state{version: m.Version}}
	case m.Action == protocol.RecordRecordNotFound && !q.kind.changes():
		return answer{outcome: missing}
	case m.Action == protocol.RecordWriteAcknowledgement && (q.kind == write || q.kind == patch),
		m.Action == protocol.RecordDeleteSuccess && q.kind == remove:
		return answer{outcome: done}
	case m.Action == protocol.RecordVersionExists && q.kind.changes():
		return answer{exists, shown}
	case m.Action == protocol.RecordInvalidVersion && q.kind.changes():
		return answer{ahead, state{version: m.Version}}
	}
	return answer{outcome: unknown}
}

// stateOf is the record that a message shows.
func stateOf(m *protocol.Message) state {
	if m.Version <= 0 {
		return state{}
	}
	// The message is the connection's, and goes with the next one.
	return state{m.Version, strings.Clone(gjson.Get(m.Data, "w").String()), strings.Clone(gjson.Get(m.Data, "p").String())}
}
