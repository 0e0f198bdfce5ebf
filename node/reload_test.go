package node

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"hadal/auth"
	"hadal/protocol"
)

// rolesOf are rules by which a role may do everything under room/ and at the names
// of users, and nobody else may; all else is open.
func rolesOf(role string) map[string]any {
	rule := fmt.Sprintf("user.data.role === '%s'", role)
	all := func(rules ...string) map[string]any {
		m := make(map[string]any)
		for _, r := range rules {
			m[r] = true
		}
		return m
	}
	section := func(open, closed []string) map[string]any {
		guarded := all(open...)
		for _, r := range closed {
			guarded[r] = rule
		}
		return map[string]any{"*": all(append(open, closed...)...), "room/*": guarded, "room/.*": guarded}
	}
	return map[string]any{
		"record":   section([]string{"create", "write", "delete", "notify"}, []string{"read", "listen"}),
		"event":    section([]string{"publish"}, []string{"subscribe", "listen"}),
		"rpc":      section([]string{"request"}, []string{"provide"}),
		"presence": map[string]any{"*": map[string]any{"allow": rule}},
	}
}

// byRole configures a node whose users guest and staff have those roles, and whose
// rules are for guests.
func byRole(c *Config) {
	c.Records.Store = "memory"
	user := func(role string) auth.Entry {
		return auth.Entry{Password: "x", ServerData: map[string]any{"role": role}}
	}
	c.Auth = []auth.Config{{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{"guest": user("guest"), "staff": user("staff")}}}}
	c.Permission.Type = "config"
	c.Permission.Options.Permissions = rolesOf("guest")
}

// flip has the rules name another role.
func (n *running) flip(t *testing.T, role string) {
	t.Helper()
	cfg := n.cfg
	cfg.Permission.Options.Permissions = rolesOf(role)
	if err := n.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// denied reads until a MESSAGE_DENIED, which must be of the request of for name.
func (p *peer) denied(topic protocol.Topic, of protocol.Action, name string) {
	p.t.Helper()
	m := p.hear(topic, protocol.Denied(topic))
	if m.OriginalAction != of || m.Name != name || !m.IsError {
		p.t.Errorf("told %+v, want that %s of %q is denied", m, of.Name(topic), name)
	}
}

// A backend whose key a reload takes away is closed, one whose key stays is not, and what
// the key let in before is refused.
func TestAReloadClosesConnectionsOfKeysThatAreGone(t *testing.T) {
	var keys [2]string
	var entries []auth.APIKey
	for i := range keys {
		var hash string
		keys[i], hash = auth.NewAPIKey()
		entries = append(entries, auth.APIKey{ID: fmt.Sprint("backend", i), Hash: hash, Role: "backend"})
	}
	n := run(t, func(c *Config) {
		byRole(c)
		c.APIKeys = entries
	})
	withKey := func(key string, want protocol.Action) *peer {
		t.Helper()
		p := dial(t, n)
		p.say(protocol.Message{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Data: fmt.Sprintf(`{"token":%q}`, key)})
		p.hear(protocol.TopicAuth, want)
		return p
	}
	gone, stays, user := withKey(keys[0], protocol.AuthAuthSuccessful), withKey(keys[1], protocol.AuthAuthSuccessful), login(t, n, "guest")
	cfg := n.cfg
	cfg.APIKeys = entries[1:]
	if err := n.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if m, err := gone.read(); err == nil {
		t.Errorf("heard %+v, want the end", m)
	} else if end := (*websocket.CloseError)(nil); !errors.As(err, &end) || end.Text != "API key removed" {
		t.Errorf("the connection ended with %v", err)
	}
	withKey(keys[0], protocol.AuthAuthUnsuccessful)
	for _, p := range []*peer{stays, user} {
		p.say(protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionPing})
		p.hear(protocol.TopicConnection, protocol.ConnectionPong)
	}
	// Another role is another key.
	changed := entries[1]
	changed.Role = "guest"
	cfg.APIKeys = []auth.APIKey{changed}
	if err := n.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if m, err := stays.read(); err == nil {
		t.Errorf("heard %+v, want the end", m)
	}
	withKey(keys[1], protocol.AuthAuthSuccessful)
}

// The whole way: what a role had in each topic ends when the rules name another, the
// client is told, and goes on with what it may.
func TestAReloadEndsWhatIsNotAllowedAnyMore(t *testing.T) {
	const ev, rec, rpc, pres = protocol.TopicEvent, protocol.TopicRecord, protocol.TopicRPC, protocol.TopicPresence
	n := run(t, byRole)
	a, b := login(t, n, "guest"), login(t, n, "staff")
	for _, m := range []protocol.Message{
		{Topic: ev, Action: protocol.EventSubscribe, Names: []string{"room/1"}},
		{Topic: ev, Action: protocol.EventSubscribe, Names: []string{"hall"}},
		{Topic: ev, Action: protocol.EventListen, Name: "room/.*"},
		{Topic: rec, Action: protocol.RecordSubscribe, Names: []string{"room/1"}},
		{Topic: rec, Action: protocol.RecordListen, Name: "room/.*"},
		{Topic: rpc, Action: protocol.RPCProvide, Names: []string{"room/1"}},
		{Topic: pres, Action: protocol.PresenceSubscribe, Names: []string{"room/1"}},
	} {
		m.CorrelationID, m.Has = "0", protocol.HasCorrelationID
		a.say(m)
		for { // a listener is asked about what is subscribed
			if got := a.next(); got.Topic == m.Topic && got.Action == m.Action && got.IsAck {
				break
			}
		}
	}
	b.say(protocol.Message{Topic: rpc, Action: protocol.RPCRequest, Name: "room/1", CorrelationID: "x", Has: protocol.HasCorrelationID})
	for a.next().Action != protocol.RPCRequest {
	}
	n.flip(t, "staff")
	b.hear(rpc, protocol.RPCNoRPCProvider)

	type ended struct {
		topic protocol.Topic
		of    protocol.Action
		name  string
	}
	want := map[ended]bool{
		{ev, protocol.EventSubscribe, "room/1"}:                false,
		{ev, protocol.EventListen, "room/.*"}:                  false,
		{rec, protocol.RecordSubscribeCreateAndRead, "room/1"}: false,
		{rec, protocol.RecordListen, "room/.*"}:                false,
		{rpc, protocol.RPCProvide, "room/1"}:                   false,
		{pres, protocol.PresenceSubscribe, "room/1"}:           false,
	}
	for range want {
		m := a.next()
		for m.Topic == ev && m.Action == protocol.EventSubscriptionForPatternFound || m.Topic == rec && m.Action == protocol.RecordSubscriptionForPatternFound {
			m = a.next() // it was asked at the last moment, while it listened
		}
		if m.Action != protocol.Denied(m.Topic) || !m.IsError {
			t.Fatalf("told %+v", m)
		}
		want[ended{m.Topic, m.OriginalAction, m.Name}] = true
	}
	for e, told := range want {
		if !told {
			t.Errorf("not told that %s %s of %s is over", e.topic, e.of.Name(e.topic), e.name)
		}
	}
	b.say(protocol.Message{Topic: ev, Action: protocol.EventEmit, Name: "room/1", Data: "1"})
	b.say(protocol.Message{
		Topic: rec, Action: protocol.RecordCreateAndUpdate, Name: "room/1", Version: -1, Data: `{}`,
		CorrelationID: "1", IsWriteAck: true, Has: versioned,
	})
	b.hear(rec, protocol.RecordWriteAcknowledgement)
	b.say(protocol.Message{Topic: rpc, Action: protocol.RPCRequest, Name: "room/1", CorrelationID: "y", Has: protocol.HasCorrelationID})
	b.hear(rpc, protocol.RPCNoRPCProvider)
	b.say(protocol.Message{Topic: ev, Action: protocol.EventEmit, Name: "hall", Data: "2"})
	if m := a.hear(ev, protocol.EventEmit); m.Name != "hall" {
		t.Errorf("heard %+v, want the event of the hall only", m)
	}
	a.say(protocol.Message{Topic: ev, Action: protocol.EventSubscribe, Names: []string{"room/1"}})
	a.denied(ev, protocol.EventSubscribe, "room/1")
}

// Ten thousand subscriptions end by one change of a role, while their names and others
// are busy: what is sent after the reload reaches none of them.
func TestAFlippedRoleEndsTenThousandSubscriptions(t *testing.T) {
	const clients, names = 100, 100
	for _, tt := range []struct {
		topic     protocol.Topic
		subscribe protocol.Action
		deniedAs  protocol.Action
		news      protocol.Action
		write     func(name, data string) protocol.Message
	}{
		{protocol.TopicEvent, protocol.EventSubscribe, protocol.EventSubscribe, protocol.EventEmit, func(name, data string) protocol.Message {
			return protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: name, Data: data}
		}},
		{protocol.TopicRecord, protocol.RecordSubscribe, protocol.RecordSubscribeCreateAndRead, protocol.RecordUpdate, func(name, data string) protocol.Message {
			return protocol.Message{
				Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: name, Version: -1, Data: `{"n":` + data + `}`,
				Has: protocol.HasVersion,
			}
		}},
	} {
		t.Run(tt.topic.String(), func(t *testing.T) {
			n := run(t, byRole)
			rooms := make([]string, names)
			for i := range rooms {
				rooms[i] = fmt.Sprint("room/", i)
			}
			guests := make([]*peer, clients)
			for i := range guests {
				guests[i] = login(t, n, "guest")
				guests[i].say(protocol.Message{Topic: tt.topic, Action: tt.subscribe, Names: append([]string{"hall"}, rooms...)})
				guests[i].hear(tt.topic, tt.subscribe)
			}
			// The readers note what they hear until the hall says that it is over.
			var after atomic.Bool
			var hearing sync.WaitGroup
			heard := make([]int, clients)
			for i, g := range guests {
				hearing.Go(func() {
					denied := make(map[string]bool)
					for {
						m, err := g.read()
						switch {
						case err != nil:
							t.Errorf("guest %d: %v", i, err)
							return
						case m.Action == protocol.Denied(tt.topic) && m.OriginalAction == tt.deniedAs && !denied[m.Name]:
							denied[m.Name] = true
						case m.Action == tt.news && m.Name == "hall":
							if m.Data == "0" || m.Data == `{"n":0}` {
								if len(denied) != names {
									t.Errorf("guest %d was told of %d names, want %d", i, len(denied), names)
								}
								return
							}
						case m.Action == tt.news && !denied[m.Name] && m.Data != "2" && m.Data != `{"n":2}`:
							heard[i]++
						default:
							t.Errorf("guest %d heard %+v", i, m)
							return
						}
					}
				})
			}
			// Writers: 1 before the reload has returned, 2 after it.
			var writing sync.WaitGroup
			rounds := make(chan struct{}, 1)
			w := login(t, n, "staff")
			writing.Go(func() {
				last := false
				for round := 0; !last; round++ {
					last = after.Load()
					some, data := rooms[round%10*10:][:10], "1"
					if last {
						some, data = rooms, "2"
					}
					for _, name := range some {
						if err := w.send(tt.write(name, data)); err != nil {
							t.Error(err)
							return
						}
					}
					// Busy, and no flood: the server has to answer first.
					if err := w.send(protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordHead, Name: "hall"}); err != nil {
						t.Error(err)
						return
					}
					if _, err := w.read(); err != nil {
						t.Error(err)
						return
					}
					select {
					case rounds <- struct{}{}:
					default:
					}
				}
				if err := w.send(tt.write("hall", "0")); err != nil {
					t.Error(err)
				}
			})
			<-rounds
			<-rounds
			// Others go on meanwhile.
			one, two := login(t, n, "staff"), login(t, n, "staff")
			two.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"yard"}})
			two.hear(protocol.TopicEvent, protocol.EventSubscribe)
			var slowest time.Duration
			var pinging sync.WaitGroup
			pinging.Go(func() {
				for !after.Load() {
					began := time.Now()
					if err := one.send(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "yard", Data: "1"}); err != nil {
						t.Error(err)
						return
					}
					if _, err := two.read(); err != nil {
						t.Error(err)
						return
					}
					slowest = max(slowest, time.Since(began))
				}
			})
			began := time.Now()
			n.flip(t, "staff")
			took := time.Since(began)
			after.Store(true)
			pinging.Wait()
			writing.Wait()
			hearing.Wait()
			all := 0
			for _, h := range heard {
				all += h
			}
			if all == 0 {
				t.Error("nobody heard anything before the reload")
			}
			t.Logf("%d subscriptions ended in %v; %d messages came before; others waited %v at most", clients*names, took, all, slowest)
		})
	}
}

// next reads a message.
func (p *peer) next() protocol.Message {
	p.t.Helper()
	m, err := p.read()
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// read and send may be called beside the test's own goroutine.
func (p *peer) read() (m protocol.Message, err error) {
	if err := p.ws.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return m, err
	}
	_, frame, err := p.ws.ReadMessage()
	if err != nil {
		return m, err
	}
	err = protocol.Decode(frame, &m)
	return m, err
}

func (p *peer) send(m protocol.Message) error {
	return p.ws.WriteMessage(websocket.BinaryMessage, protocol.Append(nil, &m))
}
