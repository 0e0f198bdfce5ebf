package jetstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"github.com/tidwall/gjson"

	"hadal/store"
)

// message is one stored message, read back and checked.
type message struct {
	entry
	seq uint64
}

// Load implements store.Store. While the stream has no leader it tries for two
// seconds.
func (s *Store) Load(ctx context.Context, name string) (store.Record, error) {
	s.state.Lock()
	// Before the read: a floor that rises later was under a record that moved.
	err, floor := s.usableLocked(), s.floor
	if err == nil && (name == "" || s.listed.lacks(s.subjects, name)) {
		err = store.ErrNotFound
	}
	s.state.Unlock()
	var m message
	if err == nil {
		err = s.retry(ctx, patience, func(ctx context.Context) (err error) {
			m, err = s.loadOnce(ctx, name)
			return err
		})
		if errors.Is(err, store.ErrNotFound) {
			s.missed()
		}
	}
	if err == nil && (m.Delete || m.seq <= floor) {
		err = store.ErrNotFound
	}
	if err != nil {
		return store.Record{}, fmt.Errorf("load %q: %w", name, err)
	}
	return m.Record, nil
}

func (s *Store) loadOnce(ctx context.Context, name string) (message, error) {
	m, err := s.lastMessage(ctx, s.subject(name))
	if err != nil {
		return message{}, err
	}
	if m.fence || m.Name != name {
		return message{}, s.corrupt(s.subject(name), m.seq, fmt.Sprintf("it holds %.100q", m.Name))
	}
	return m, nil
}

// lastMessage reads the message of a subject without wildcards. A miss is
// checked against the stream's own list of subjects.
func (s *Store) lastMessage(ctx context.Context, subject string) (message, error) {
	m, err := s.last(ctx, subject)
	if !errors.Is(err, store.ErrNotFound) {
		return m, err
	}
	info, infoErr := s.requestInfo(ctx, subject)
	if infoErr != nil {
		return message{}, infoErr
	}
	if !info.Listed {
		return message{}, err
	}
	// It came into being between the two requests, or it cannot be read.
	m, err = s.last(ctx, subject)
	if errors.Is(err, store.ErrNotFound) {
		if info, infoErr = s.requestInfo(ctx, subject); infoErr != nil {
			return message{}, infoErr
		}
		if info.Listed {
			return message{}, s.corrupt(subject, 0, "the server lists it and cannot read it")
		}
	}
	return m, err
}

// last reads the message of a subject in the way that the stream allows.
func (s *Store) last(ctx context.Context, subject string) (message, error) {
	if !s.direct.Load() {
		return s.message(ctx, getLast(subject))
	}
	reply, err := s.nc.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+s.stream+"."+subject, nil)
	if err != nil {
		return message{}, err
	}
	switch status := reply.Header.Get("Status"); status {
	case "":
	case "404":
		return message{}, store.ErrNotFound
	default:
		return message{}, fmt.Errorf("the answer is %s %s", status, reply.Header.Get("Description"))
	}
	seq, err := strconv.ParseUint(reply.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil || reply.Header.Get("Nats-Subject") != subject {
		return message{}, errors.New("the answer holds no message")
	}
	return s.decode(subject, seq, reply.Data)
}

// The requests for one message.

func getLast(subject string) []byte {
	b := append(make([]byte, 0, len(subject)+40), `{"no_hdr":true,"last_by_subj":"`...)
	return append(append(b, subject...), `"}`...)
}

func getBySequence(seq uint64) []byte {
	return append(strconv.AppendUint([]byte(`{"no_hdr":true,"seq":`), seq, 10), '}')
}

// message sends one of these requests. It returns ErrNotFound when the server
// finds none or cannot read it, which it does not tell apart.
func (s *Store) message(ctx context.Context, request []byte) (message, error) {
	subject, seq, payload, err := s.raw(ctx, request)
	if err != nil {
		return message{}, err
	}
	return s.decode(subject, seq, payload)
}

// raw is message for a payload that is not yet decoded.
func (s *link) raw(ctx context.Context, request []byte) (subject string, seq uint64, payload []byte, err error) {
	reply, err := s.request(ctx, "$JS.API.STREAM.MSG.GET."+s.stream, request)
	if err != nil {
		return "", 0, nil, err
	}
	answer := gjson.ParseBytes(reply.Data)
	if err := errorIn(answer); err != nil {
		if api, ok := errors.AsType[*apiError](err); ok && api.ErrCode == codeNoMessage {
			return "", 0, nil, store.ErrNotFound
		}
		return "", 0, nil, err
	}
	got := answer.Get("message")
	subject, seq = got.Get("subject").Str, got.Get("seq").Uint()
	if subject == "" || seq == 0 {
		return "", 0, nil, errors.New("the answer holds no message")
	}
	payload, err = base64.StdEncoding.DecodeString(got.Get("data").Str)
	if err != nil {
		return "", 0, nil, s.corrupt(subject, seq, err.Error())
	}
	return subject, seq, payload, nil
}

// decode checks a payload. The result is a copy.
func (s *Store) decode(subject string, seq uint64, payload []byte) (message, error) {
	e, err := decodeEntry(payload)
	if err != nil {
		return message{}, s.corrupt(subject, seq, err.Error())
	}
	if !e.fence && subject != s.subject(e.Name) || e.fence && subject != s.fenceAt {
		return message{}, s.corrupt(subject, seq, fmt.Sprintf("it holds %.100q", e.Name))
	}
	return message{entry: e, seq: seq}, nil
}

// streamState is the part of the stream's state that we read.
type streamState struct {
	Messages, Bytes   uint64
	FirstSeq, LastSeq uint64
	Subjects          int  // with a message each
	Lost              int  // messages that the server could not recover
	Listed            bool // the subject asked for is there
	Led               bool // it is the leader who says so
	Term              string
}

func (s *link) streamInfo(ctx context.Context) (streamState, error) {
	return s.requestInfo(ctx, "")
}

// requestInfo asks for the state, and whether a subject is there if it is not empty.
func (s *link) requestInfo(ctx context.Context, subject string) (streamState, error) {
	var request []byte
	if subject != "" {
		request = fmt.Appendf(nil, `{"subjects_filter":"%s"}`, subject)
	}
	reply, err := s.request(ctx, "$JS.API.STREAM.INFO."+s.stream, request)
	if err != nil {
		return streamState{}, err
	}
	answer := gjson.ParseBytes(reply.Data)
	if err := errorIn(answer); err != nil {
		return streamState{}, err
	}
	state := answer.Get("state")
	if !state.Exists() {
		return streamState{}, errors.New("the answer holds no state")
	}
	return streamState{
		Messages: state.Get("messages").Uint(), Bytes: state.Get("bytes").Uint(),
		FirstSeq: state.Get("first_seq").Uint(), LastSeq: state.Get("last_seq").Uint(), Subjects: int(state.Get("num_subjects").Int()),
		Lost: int(state.Get("lost.msgs.#").Int()), Listed: state.Get("subjects").Exists(),
		Term: termOf(answer), Led: led(answer),
	}, nil
}

// led says whether a stream's information comes from its leader. While there is none any
// replica gives it, of what it has itself.
func led(info gjson.Result) bool {
	c := info.Get("cluster")
	return !c.Exists() || c.Get("leader").Str != ""
}

// errNotLed is what an answer of somebody else is worth to those who need the leader's.
var errNotLed = fmt.Errorf("the stream has no leader: %w", errMoved)
