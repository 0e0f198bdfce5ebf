// Package mqtt is how clients of MQTT 3.1.1 and 5 come in (spec 05): a port of its own,
// or a stream inside of a WebSocket. The library mochi knows the packets and the course of
// a session; that is all it does here. Its own delivery is off: a PUBLISH becomes a message
// of our pipeline, under our rules, and what a client hears comes from our rooms, through
// the queue of its endpoint.Conn, encoded once for all. What mochi believes to be the
// socket is that Conn.
//
//	socket ─► guard ─► mochi ─► hooks ─► session ─► Conn.Receive ─► the pipeline
//	socket ◄─ Conn's queue ◄─ mochi's CONNACK, SUBACK, PINGRESP …
//	                └───────── protocol.FormMQTT of broadcasts, PUBACK ◄─ the rooms
//
// # Topics
//
// A topic under one of recordPrefixes is a record of that name: a PUBLISH writes it,
// a SUBSCRIBE gets it as a retained message and then each change as a whole. Any other is
// an event; there a retained PUBLISH of JSON writes the record of that name besides, as
// it does with the peer. Wildcards see sub.Watcher: each concrete name is judged when
// something is delivered.
//
// # What is promised
//
// A PUBACK follows the write of a record, or the delivery of an event to all queues; they
// leave in the order of the PUBLISHes. Deliveries are of QoS 0, which a SUBACK says. A
// session ends with its connection: CONNACK says so to clients that would keep it. A
// client that comes with the id of another one of the same user takes its place, on one
// node.
package mqtt

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"hadal/auth"
	"hadal/node/endpoint"
	"hadal/node/sub"
	"hadal/protocol"

	broker "github.com/mochi-mqtt/server/v2"
)

// House is the node as clients of MQTT need it.
type House interface {
	// Watch and Unwatch add and remove a filter for events or records.
	Watch(t protocol.Topic, filter string, w *sub.Watcher) sub.Added
	Unwatch(t protocol.Topic, filter string, w *sub.Watcher)
	// MayHear judges a message for a filter, as sub.Judge.
	MayHear(u *auth.User, o *protocol.Outbound) (ok, keep bool)
	// Generation is that of the rules.
	Generation() uint64
}

// Name is the dialect in metrics and logs, and the type in the configuration.
const Name = "mqtt"

// Server serves clients of MQTT.
type Server struct {
	cfg     Config
	port    *endpoint.Server
	house   House
	log     *slog.Logger
	options *endpoint.WebSocketConfig
	broker  *broker.Server

	refused atomic.Uint64 // subscriptions with wildcards, for their number

	mu        sync.Mutex
	sessions  map[string]*session // by user and client id; guarded by mu
	wildcards int                 // subscriptions with them of all clients; guarded by mu
	held      map[string]int      // of them, by user; guarded by mu
}

// New adds MQTT to a port that has not been opened yet. cfg is valid and enabled. Its
// error is about the certificate.
func New(cfg Config, port *endpoint.Server, house House, log *slog.Logger) (*Server, error) {
	s := &Server{cfg: cfg, port: port, house: house, log: log, options: cfg.options(), sessions: make(map[string]*session), held: make(map[string]int)}
	limits := broker.NewDefaultServerCapabilities()
	limits.MaximumClientWritesPending = 1 // there are none
	limits.MaximumSessionExpiryInterval = 0
	limits.MaximumPacketSize = 0 // the guard's
	limits.TopicAliasMaximum = 0
	limits.SharedSubAvailable = 0
	limits.SubIDAvailable = 0
	limits.MaximumQos = 1
	s.broker = broker.New(&broker.Options{
		Capabilities: limits,
		// It logs packets as a whole, with what is in them.
		Logger: slog.New(slog.DiscardHandler),
	})
	if err := s.broker.AddHook(&hooks{server: s}, nil); err != nil {
		return nil, err
	}
	port.Watch(s.options)
	if cfg.Port < 0 {
		return s, nil
	}
	return s, port.AddPort(endpoint.Port{Host: cfg.Host, Port: cfg.Port, SSL: cfg.SSL, Serve: s.Serve})
}

// ServeHTTP serves MQTT over WebSocket.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if nc, visit := s.port.TakeStream(w, r, "mqtt"); nc != nil {
		s.Serve(nc, visit)
	}
}

// Serve serves one client until it has gone.
func (s *Server) Serve(nc net.Conn, visit *auth.Attempt) {
	c := newSession(s)
	conn := s.port.Plain(&endpoint.Dialect{Name: Name, Options: s.options, Codec: func() endpoint.Codec { return c }}, nc, nil, visit)
	if conn == nil {
		return
	}
	c.conn.Store(conn)
	defer conn.Leave()
	defer c.end()
	if err := s.broker.EstablishConnection(Name, &pipe{session: c, conn: conn, nc: nc}); err != nil {
		s.log.Debug("mqtt session ended", "conn", conn.ID(), "err", err)
	}
}

// WildcardsRefused is how many subscriptions with wildcards were refused for their number.
func (s *Server) WildcardsRefused() uint64 { return s.refused.Load() }

// enter makes c the session of its user and client id, and ends the one before.
func (s *Server) enter(c *session) {
	s.mu.Lock()
	before := s.sessions[c.key]
	s.sessions[c.key] = c
	s.mu.Unlock()
	if before != nil {
		before.takenOver()
	}
}

func (s *Server) leave(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[c.key] == c {
		delete(s.sessions, c.key)
	}
}
