package endpoint

import (
	"log/slog"
	"sync/atomic"

	"hadal/protocol"

	"github.com/olahol/melody"
)

// Reason is why a connection ended.
type Reason uint8

// The reasons.
const (
	// ConnectionLost is a socket that ended without a goodbye.
	ConnectionLost Reason = iota
	// ClientClosed is the client's own goodbye.
	ClientClosed
	// Silent is a client that sent nothing for two heartbeats.
	Silent
	// SlowConsumer is a client that did not take its broadcasts.
	SlowConsumer
	// AuthenticationTimeout is a client that did not log in in time.
	AuthenticationTimeout
	// TooManyAuthAttempts is a client that failed to log in too often.
	TooManyAuthAttempts
	// Outdated is a client that is too old to log in.
	Outdated
	// InvalidAuthData is a login without parameters that are a JSON object.
	InvalidAuthData
	// TextFrame is a client that sent text on a path where every message is binary.
	TextFrame
	// BinaryFrame is a client that sent a binary message on a path where all are text.
	BinaryFrame
	// MessageTooBig is a client that sent more than maxMessageSize in a message.
	MessageTooBig
	// ProtocolError is a client that does not speak WebSocket.
	ProtocolError
	// Disconnected is an operator's word.
	Disconnected
	// GoingAway is the server's own end.
	GoingAway
	// Redirected is a client that was sent to another node.
	Redirected
	// Crowded is a client without login that made room for others.
	Crowded
	// LoginsBusy is a client whose login could not wait: too many do.
	LoginsBusy
	// Stray is a client that sent too much without logging in.
	Stray
	// TokenExpired is a client whose token has expired, and its grace is over.
	TokenExpired
	// TokenRevoked is a client whose token was revoked.
	TokenRevoked
	// Kicked is a client whose user was disconnected by a backend.
	Kicked
	// KeyRemoved is a backend whose API key is none any more.
	KeyRemoved
	// TokensUnknown is a client whose token cannot be looked after, because this node has
	// been cut off from those that know of revocations.
	TokensUnknown
	// NotAllowed is a client one of whose subscriptions the rules do not allow any more, and
	// that cannot be told otherwise.
	NotAllowed
	// Panicked is a mistake of ours.
	Panicked
	reasons
)

// reasonTable says for each reason its name, in logs, metrics and close frames,
// the close code and the level it is logged at.
var reasonTable = [reasons]struct {
	name  string
	code  int
	level slog.Level
}{
	ConnectionLost:        {"connection lost", melody.CloseAbnormalClosure, slog.LevelInfo},
	ClientClosed:          {"client closed", melody.CloseNormalClosure, slog.LevelInfo},
	Silent:                {"silent", melody.ClosePolicyViolation, slog.LevelWarn},
	SlowConsumer:          {"slow consumer", melody.ClosePolicyViolation, slog.LevelWarn},
	AuthenticationTimeout: {"authentication timeout", melody.ClosePolicyViolation, slog.LevelInfo},
	TooManyAuthAttempts:   {"too many authentication attempts", melody.ClosePolicyViolation, slog.LevelWarn},
	Outdated:              {"client is too old", melody.ClosePolicyViolation, slog.LevelInfo},
	InvalidAuthData:       {"invalid authentication data", melody.ClosePolicyViolation, slog.LevelWarn},
	TextFrame:             {"text frame", melody.CloseUnsupportedData, slog.LevelWarn},
	BinaryFrame:           {"binary frame", melody.CloseUnsupportedData, slog.LevelWarn},
	MessageTooBig:         {"message too big", melody.CloseMessageTooBig, slog.LevelWarn},
	ProtocolError:         {"protocol error", melody.CloseProtocolError, slog.LevelWarn},
	Disconnected:          {"disconnected by the operator", melody.ClosePolicyViolation, slog.LevelInfo},
	GoingAway:             {"server is going away", melody.CloseGoingAway, slog.LevelInfo},
	Redirected:            {"sent to another node", melody.CloseGoingAway, slog.LevelInfo},
	Crowded:               {"too many without login", melody.CloseTryAgainLater, slog.LevelInfo},
	LoginsBusy:            {"too many logins at once", melody.CloseTryAgainLater, slog.LevelInfo},
	Stray:                 {"too many messages before login", melody.ClosePolicyViolation, slog.LevelWarn},
	TokenExpired:          {"token expired", melody.ClosePolicyViolation, slog.LevelInfo},
	TokenRevoked:          {"token revoked", melody.ClosePolicyViolation, slog.LevelInfo},
	Kicked:                {"kicked", melody.ClosePolicyViolation, slog.LevelInfo},
	KeyRemoved:            {"API key removed", melody.ClosePolicyViolation, slog.LevelInfo},
	TokensUnknown:         {"revocations are not known here", melody.CloseTryAgainLater, slog.LevelWarn},
	NotAllowed:            {"subscription not allowed any more", melody.ClosePolicyViolation, slog.LevelInfo},
	Panicked:              {"internal error", melody.CloseInternalServerErr, slog.LevelWarn},
}

// String is the reason in words.
func (r Reason) String() string { return reasonTable[r].name }

func (r Reason) code() int         { return reasonTable[r].code }
func (r Reason) level() slog.Level { return reasonTable[r].level }

// The results of a login.
const (
	loginAccepted = iota
	loginRefused
	loginFailed    // could not be judged
	loginAbandoned // the client had gone
	loginBusy      // had no place in the queue, or waited too long
	loginResults
)

var loginNames = [loginResults]string{"accepted", "refused", "failed", "abandoned", "busy"}

const (
	countedTopics = int(protocol.TopicPresence) + 1
	// countedActions is above every action of the protocol; others, which any
	// client can make up, count as action 0.
	countedActions = 128
	// counterShards spreads the hot counters, so that cores do not fight for them.
	counterShards = 8
)

// counters are those that every message moves. A connection uses one shard.
type counters struct {
	bytesIn, bytesOut atomic.Uint64
	undecodable       atomic.Uint64
	oversize          atomic.Uint64 // see Conn.Takes
	in, out           tally
	_                 [64]byte // keeps the next shard off this one's last cache line
}

func (c *counters) received(m *protocol.Message) { c.in.cell(m.Topic, m.Action).Add(1) }
func (c *counters) sent(m *protocol.Message)     { c.out.cell(m.Topic, m.Action).Add(1) }

// tally counts by topic and action.
type tally [countedTopics][countedActions]atomic.Uint64

func (t *tally) cell(topic protocol.Topic, action protocol.Action) *atomic.Uint64 {
	if int(topic) >= countedTopics {
		topic = 0
	}
	if action < 0 || int(action) >= countedActions {
		action = 0
	}
	return &t[topic][action]
}

// Stats are the port's numbers since the start. Nothing in them grows with what
// clients send.
type Stats struct {
	// Open is the number of connections at the moment, logged in or not.
	Open uint64
	// Connections is how many there have been.
	Connections uint64
	// Dialects counts both by dialect.
	Dialects map[string]DialectStats
	// Sockets is the number of TCP connections at the moment, those of Open and
	// those that speak HTTP; NotLoggedIn how many of them have not logged in.
	Sockets, NotLoggedIn uint64
	// Refused counts by reason the sockets that were turned away to bound them.
	Refused map[string]uint64
	// Outdated counts by result (warned, refused) the clients that are too old.
	Outdated map[string]uint64
	// Logins counts by result: accepted, refused, failed (could not be judged),
	// abandoned (the client left first), busy (too many logins at once).
	Logins map[string]uint64
	// Closed counts ended connections by Reason.
	Closed map[string]uint64
	// In and Out count messages, only those that occurred. Out counts a message
	// when it is queued for a client.
	In, Out []MessageCount
	// Oversize counts messages that were not sent because their client takes no such large
	// ones.
	Oversize uint64
	// Undecodable counts frames that were no message.
	Undecodable uint64
	// BytesIn and BytesOut count bytes on WebSocket connections, above TLS.
	BytesIn, BytesOut uint64
	// Panics counts mistakes of ours that ended a connection.
	Panics uint64
}

// DialectStats counts the connections of one dialect: those of the moment, and all there
// have been.
type DialectStats struct{ Open, Connections uint64 }

// MessageCount is how often a message occurred. Action 0 stands for all numbers
// that the protocol does not know.
type MessageCount struct {
	Topic  protocol.Topic
	Action protocol.Action
	N      uint64
}

// Stats reads the counters. They are not read at one instant.
func (s *Server) Stats() Stats {
	st := Stats{
		Connections: s.lastID.Load(),
		Logins:      make(map[string]uint64, loginResults),
		Closed:      make(map[string]uint64, reasons),
		Refused:     make(map[string]uint64, refusals),
		Outdated:    make(map[string]uint64, outdatedResults),
		Dialects:    make(map[string]DialectStats),
		Panics:      s.panics.Load(),
	}
	s.mu.Lock()
	st.Open = uint64(len(s.conns))
	for name, n := range s.spoken {
		st.Dialects[name] = DialectStats{Connections: n}
	}
	for c := range s.conns {
		d := st.Dialects[c.dialect.Name]
		d.Open++
		st.Dialects[c.dialect.Name] = d
	}
	s.mu.Unlock()
	sockets, newcomers := s.gate.stats()
	st.Sockets, st.NotLoggedIn = uint64(sockets), uint64(newcomers)
	for i, name := range refusalNames {
		st.Refused[name] = s.gate.refused[i].Load()
	}
	for i, name := range outdatedNames {
		st.Outdated[name] = s.outdated.counts[i].Load()
	}
	for i, name := range loginNames {
		st.Logins[name] = s.logins[i].Load()
	}
	for r := range reasons {
		st.Closed[r.String()] = s.closes[r].Load()
	}
	for i := range s.counters {
		c := &s.counters[i]
		st.BytesIn += c.bytesIn.Load()
		st.BytesOut += c.bytesOut.Load()
		st.Undecodable += c.undecodable.Load()
		st.Oversize += c.oversize.Load()
	}
	st.In = s.sum(func(c *counters) *tally { return &c.in })
	st.Out = s.sum(func(c *counters) *tally { return &c.out })
	return st
}

// sum adds the shards up.
func (s *Server) sum(of func(*counters) *tally) []MessageCount {
	var out []MessageCount
	for t := range countedTopics {
		for a := range countedActions {
			var n uint64
			for i := range s.counters {
				n += of(&s.counters[i])[t][a].Load()
			}
			if n > 0 {
				out = append(out, MessageCount{protocol.Topic(t), protocol.Action(a), n})
			}
		}
	}
	return out
}
