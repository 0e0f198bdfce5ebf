package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth"
	"hadal/cluster"
	"hadal/node/sub"
	"hadal/protocol"
)

// fake is a client that writes down what it is sent.
type fake struct {
	id   uint64
	user auth.User
	gone atomic.Bool
	mu   sync.Mutex
	got  []string // guarded by mu
}

func (f *fake) Reserve(int) bool                  { return true }
func (f *fake) Release(int)                       {}
func (f *fake) ID() uint64                        { return f.id }
func (f *fake) User() *auth.User                  { return &f.user }
func (f *fake) Gone() bool                        { return f.gone.Load() }
func (f *fake) Pace()                             {}
func (f *fake) AnswerShared(o *protocol.Outbound) { f.Answer(&o.Message) }
func (f *fake) Send(o *protocol.Outbound)         { f.Answer(&o.Message) }
func (f *fake) Answer(m *protocol.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, say(m))
}

// say spells out all that is on the wire.
func say(m *protocol.Message) string {
	s := m.Action.Name(protocol.TopicRPC)
	if m.Topic != protocol.TopicRPC {
		s = m.Topic.String() + " " + s
	}
	if m.IsAck {
		s += " ack"
	}
	if m.IsError {
		s += " error"
	}
	for _, f := range []struct {
		has  protocol.Fields
		what string
		val  any
	}{
		{protocol.HasName, "name", m.Name},
		{protocol.HasCorrelationID, "id", m.CorrelationID},
		{protocol.HasData, "data", m.Data},
		{protocol.HasOriginalAction, "of", m.OriginalAction.Name(protocol.TopicRPC)},
		{protocol.HasRequestorName, "by", m.RequestorName},
		{protocol.HasRequestorData, "with", m.RequestorData},
	} {
		if m.Carries(f.has) {
			s += fmt.Sprintf(" %s=%v", f.what, f.val)
		}
	}
	return s
}

func (f *fake) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	got := f.got
	f.got = nil
	return got
}

func (f *fake) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := f.take(); !slices.Equal(got, want) {
		t.Errorf("client %d got\n\t%q\nwant\n\t%q", f.id, got, want)
	}
}

// newRoom is the room of a node alone.
func newRoom(cfg Config) *Room {
	return New(cfg, cluster.Alone{}, cluster.NewSoloInMemory("n"), slog.New(slog.DiscardHandler))
}

// world is a room that runs in a bubble.
type world struct {
	*Room
	next uint64
}

func inBubble(t *testing.T, change func(*Config), body func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		if change != nil {
			change(&cfg)
		}
		w := &world{Room: newRoom(cfg)}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := w.Run(ctx); err != nil {
				t.Errorf("Run = %v", err)
			}
		})
		body(w)
		stop()
		wg.Wait()
	})
}

func (w *world) client() *fake {
	w.next++
	return &fake{id: w.next, user: auth.User{ID: fmt.Sprint("user", w.next)}}
}

// provider is a client that provides add.
func (w *world) provider() *fake {
	p := w.client()
	w.bulk(p, protocol.RPCProvide, "0", "add")
	p.take()
	return p
}

func (w *world) bulk(c *fake, a protocol.Action, id string, names ...string) {
	w.Handle(c, &protocol.Message{Topic: protocol.TopicRPC, Action: a, Names: names, CorrelationID: id, Has: protocol.HasCorrelationID})
}

func (w *world) do(c *fake, a protocol.Action, id, data string) {
	m := &protocol.Message{
		Topic: protocol.TopicRPC, Action: a, Name: "add", CorrelationID: id, Data: data,
		Has: protocol.HasName | protocol.HasCorrelationID,
	}
	if data != "" {
		m.Has |= protocol.HasData
	}
	w.Handle(c, m)
}

func (w *world) disconnect(c *fake) {
	c.gone.Store(true)
	w.Closed(c)
}

// asked returns which of the providers has got a REQUEST, and takes it.
func asked(t *testing.T, providers ...*fake) *fake {
	t.Helper()
	var one *fake
	for _, p := range providers {
		for _, s := range p.take() {
			if !strings.HasPrefix(s, "REQUEST ") || one != nil {
				t.Fatalf("client %d got %q", p.id, s)
			}
			one = p
		}
	}
	if one == nil {
		t.Fatal("no provider was asked")
	}
	return one
}

const (
	request = protocol.RPCRequest
	accept  = protocol.RPCAccept
	respond = protocol.RPCResponse
	fail    = protocol.RPCRequestError
	reject  = protocol.RPCReject
)

func end(a, id string) string { return a + " name=add id=" + id }

func refused(of, id string) string {
	return "INVALID_RPC_CORRELATION_ID error name=add id=" + id + " of=" + of
}

func TestACallAsInTheExample(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		p, c := w.provider(), w.client()
		w.do(c, request, "x1", `{"a":1}`)
		p.expect(t, `REQUEST name=add id=x1 data={"a":1}`)
		w.do(p, accept, "x1", "")
		c.expect(t, end("ACCEPT", "x1"))
		w.do(p, respond, "x1", "2")
		c.expect(t, end("RESPONSE", "x1")+" data=2")
		time.Sleep(time.Minute)
		c.expect(t)
		p.expect(t)
		if got, want := w.Stats(), (Stats{Names: 1, Providers: 1, Requests: 1, Responses: 1}); got != want {
			t.Errorf("Stats = %+v, want %+v", got, want)
		}
	})
}

func TestEverybodyRejectsAsInTheExample(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		p1, p2, c := w.provider(), w.provider(), w.client()
		w.do(c, request, "x1", "")
		first := asked(t, p1, p2)
		w.do(first, reject, "x1", "")
		second := asked(t, p1, p2)
		if first == second {
			t.Fatal("the same provider was asked twice")
		}
		c.expect(t)
		w.do(second, reject, "x1", "")
		c.expect(t, end("NO_RPC_PROVIDER", "x1"))
		p1.expect(t)
		p2.expect(t)
	})
}

func TestHowACallEnds(t *testing.T) {
	for _, tc := range []struct {
		what     string
		do       func(w *world, c, p *fake)
		caller   []string
		provider []string // after its REQUEST
	}{
		{"answered without an accept", func(w *world, c, p *fake) { w.do(p, respond, "1", "null") },
			[]string{end("RESPONSE", "1") + " data=null"}, nil},
		{"answered without data", func(w *world, c, p *fake) { w.do(p, respond, "1", "") },
			[]string{end("RESPONSE", "1")}, nil},
		{"with an error", func(w *world, c, p *fake) { w.do(p, accept, "1", ""); w.do(p, fail, "1", `"no"`) },
			[]string{end("ACCEPT", "1"), end("REQUEST_ERROR", "1") + ` data="no"`}, nil},
		{"accepted twice", func(w *world, c, p *fake) {
			w.do(p, accept, "1", "")
			w.do(p, accept, "1", "")
			w.do(p, respond, "1", "1")
		},
			[]string{end("ACCEPT", "1"), end("RESPONSE", "1") + " data=1"}, []string{end("MULTIPLE_ACCEPT", "1")}},
		{"answered twice", func(w *world, c, p *fake) { w.do(p, respond, "1", "1"); w.do(p, respond, "1", "2") },
			[]string{end("RESPONSE", "1") + " data=1"}, []string{refused("RESPONSE", "1")}},
		{"accepted afterwards", func(w *world, c, p *fake) { w.do(p, respond, "1", "1"); w.do(p, accept, "1", "") },
			[]string{end("RESPONSE", "1") + " data=1"}, []string{refused("ACCEPT", "1")}},
		{"rejected after an accept", func(w *world, c, p *fake) { w.do(p, accept, "1", ""); w.do(p, reject, "1", "") },
			[]string{end("ACCEPT", "1"), end("NO_RPC_PROVIDER", "1")}, nil},
		{"never accepted", func(w *world, c, p *fake) { time.Sleep(w.cfg.AckTimeout); synctest.Wait() },
			[]string{end("ACCEPT_TIMEOUT", "1")}, nil},
		{"never answered", func(w *world, c, p *fake) {
			w.do(p, accept, "1", "")
			time.Sleep(w.cfg.ResponseTimeout)
			synctest.Wait()
		}, []string{end("ACCEPT", "1"), end("RESPONSE_TIMEOUT", "1")}, nil},
		{"answered too late", func(w *world, c, p *fake) { time.Sleep(time.Hour); synctest.Wait(); w.do(p, fail, "1", "1") },
			[]string{end("ACCEPT_TIMEOUT", "1")}, []string{refused("REQUEST_ERROR", "1")}},
		{"answered in the last moment", func(w *world, c, p *fake) {
			time.Sleep(w.cfg.AckTimeout - 1)
			synctest.Wait()
			w.do(p, accept, "1", "")
			time.Sleep(w.cfg.ResponseTimeout - w.cfg.AckTimeout)
			synctest.Wait()
			w.do(p, respond, "1", "1")
		}, []string{end("ACCEPT", "1"), end("RESPONSE", "1") + " data=1"}, nil},
		{"its provider disconnects", func(w *world, c, p *fake) { w.disconnect(p) },
			[]string{end("NO_RPC_PROVIDER", "1")}, nil},
		{"its provider stops providing and answers all the same", func(w *world, c, p *fake) {
			w.bulk(p, protocol.RPCUnprovide, "7", "add")
			w.do(p, respond, "1", "1")
		}, []string{end("RESPONSE", "1") + " data=1"}, []string{"UNPROVIDE ack id=7"}},
		{"answered with bad json", func(w *world, c, p *fake) { w.do(p, respond, "1", "{") },
			[]string{end("REQUEST_ERROR", "1") + ` data="INVALID_MESSAGE_DATA"`},
			[]string{"INVALID_MESSAGE_DATA error name=add id=1 of=RESPONSE"}},
		{"failed with bad json", func(w *world, c, p *fake) { w.do(p, fail, "1", "oops") },
			[]string{end("REQUEST_ERROR", "1") + ` data="INVALID_MESSAGE_DATA"`},
			[]string{"INVALID_MESSAGE_DATA error name=add id=1 of=REQUEST_ERROR"}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			inBubble(t, nil, func(w *world) {
				p, c := w.provider(), w.client()
				w.do(c, request, "1", "")
				p.expect(t, "REQUEST name=add id=1")
				tc.do(w, c, p)
				c.expect(t, tc.caller...)
				p.expect(t, tc.provider...)
				if got := w.Stats(); got.Running != 0 {
					t.Errorf("%d calls are still running", got.Running)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				c.expect(t) // exactly one end
			})
		})
	}
}

func TestRequestsThatReachNobody(t *testing.T) {
	for _, tc := range []struct {
		what string
		m    protocol.Message
		want string
	}{
		{"nobody provides it",
			protocol.Message{Action: request, Name: "sub", CorrelationID: "1", Has: protocol.HasName | protocol.HasCorrelationID},
			"NO_RPC_PROVIDER name=sub id=1"},
		{"no name", protocol.Message{Action: request, CorrelationID: "1", Has: protocol.HasCorrelationID}, "NO_RPC_PROVIDER id=1"},
		{"no correlation id", protocol.Message{Action: request, Name: "add", Has: protocol.HasName},
			"INVALID_RPC_CORRELATION_ID error name=add of=REQUEST"},
		{"bad json",
			protocol.Message{Action: request, Name: "add", CorrelationID: "1", Data: "{", Has: protocol.HasName | protocol.HasCorrelationID | protocol.HasData},
			`REQUEST_ERROR name=add id=1 data="INVALID_MESSAGE_DATA"`},
		{"an accept out of nowhere", protocol.Message{Action: accept}, "INVALID_RPC_CORRELATION_ID error of=ACCEPT"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			inBubble(t, nil, func(w *world) {
				p, c := w.provider(), w.client()
				tc.m.Topic = protocol.TopicRPC
				w.Handle(c, &tc.m)
				c.expect(t, tc.want)
				p.expect(t)
				if len(w.clients) != 1 {
					t.Errorf("%d clients are known, want the provider only", len(w.clients))
				}
			})
		})
	}
}

func TestUnknownActionsAreIgnored(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		c := w.provider()
		for _, a := range []protocol.Action{0, 1, 3, protocol.RPCNoRPCProvider, protocol.RPCMultipleResponse, 4711} {
			w.do(c, a, "1", "")
		}
		c.expect(t)
	})
}

func TestProvidingIsAcknowledged(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		c := w.client()
		w.bulk(c, protocol.RPCProvide, "0", "a", "b")
		w.bulk(c, protocol.RPCProvide, "1", "b", "c", "c")
		w.bulk(c, protocol.RPCUnprovide, "2", "a", "zz")
		w.bulk(c, protocol.RPCUnprovide, "3")
		w.Handle(c, &protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{"d"}})
		c.expect(t,
			"PROVIDE ack id=0",
			"MULTIPLE_PROVIDERS name=b of=PROVIDE", "MULTIPLE_PROVIDERS name=c of=PROVIDE", "PROVIDE ack id=1",
			"UNPROVIDE ack id=2", "UNPROVIDE ack id=3", "PROVIDE ack")
		if got := w.Stats(); got.Names != 3 || got.Providers != 3 {
			t.Errorf("Stats = %+v", got)
		}
	})
}

func TestOnlyTheAskedProviderMayAnswer(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		p1, p2, c := w.provider(), w.provider(), w.client()
		w.do(c, request, "1", "")
		one := asked(t, p1, p2)
		other := p1
		if one == p1 {
			other = p2
		}
		for _, thief := range []*fake{other, c, w.client()} {
			for _, a := range []protocol.Action{accept, respond, fail, reject} {
				w.do(thief, a, "1", "")
			}
			thief.expect(t, refused("ACCEPT", "1"), refused("RESPONSE", "1"), refused("REQUEST_ERROR", "1"), refused("REJECT", "1"))
		}
		one.expect(t)
		w.do(one, respond, "1", "1")
		c.expect(t, end("RESPONSE", "1")+" data=1")
	})
}

func TestARejectionStartsEverythingAnew(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		p1, p2, c := w.provider(), w.provider(), w.client()
		w.do(c, request, "1", `{"a":"b"}`)
		first := asked(t, p1, p2)
		w.do(first, accept, "1", "")
		time.Sleep(w.cfg.ResponseTimeout - 1)
		w.do(first, reject, "1", "")
		second := asked(t, p1, p2)
		time.Sleep(w.cfg.AckTimeout - 1)
		synctest.Wait()
		w.do(second, accept, "1", "") // the accept of the first does not count
		second.expect(t)
		time.Sleep(w.cfg.ResponseTimeout - w.cfg.AckTimeout)
		synctest.Wait()
		w.do(second, respond, "1", "1")
		c.expect(t, end("ACCEPT", "1"), end("ACCEPT", "1"), end("RESPONSE", "1")+" data=1")
	})
}

func TestTheRequestIsTheSameForEachProvider(t *testing.T) {
	inBubble(t, func(c *Config) { c.ProvideRequestorName, c.ProvideRequestorData = true, true }, func(w *world) {
		c := w.client()
		c.user.ClientData = `{"x":"y"}`
		const want = `REQUEST name=add id=1 data={"a":"b"} by=user1 with={"x":"y"}`
		providers := []*fake{w.provider(), w.provider(), w.provider()}
		w.do(c, request, "1", `{"a":"b"}`)
		for range providers {
			for _, p := range providers {
				if got := p.take(); len(got) > 0 {
					if got[0] != want {
						t.Errorf("got %q, want %q", got[0], want)
					}
					w.do(p, reject, "1", "")
					break
				}
			}
		}
		c.expect(t, end("NO_RPC_PROVIDER", "1"))
	})
}

func TestTheRequestorIsWhoLoggedInAndNothingElse(t *testing.T) {
	for _, tc := range []struct {
		what       string
		name, data bool
		clientData string
		want       string
	}{
		{"neither", false, false, `{"a":1}`, ""},
		{"the name", true, false, `{"a":1}`, " by=user2"},
		{"the data", false, true, `{"a":1}`, ` with={"a":1}`},
		{"no data", true, true, "", " by=user2"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			inBubble(t, func(c *Config) { c.ProvideRequestorName, c.ProvideRequestorData = tc.name, tc.data }, func(w *world) {
				p, c := w.provider(), w.client()
				c.user.ClientData = tc.clientData
				w.Handle(c, &protocol.Message{ // with everything that does not belong there
					Topic: protocol.TopicRPC, Action: request, Name: "add", CorrelationID: "1", Data: "1",
					RequestorName: "root", RequestorData: `{"admin":true}`, IsAck: true, IsError: true, IsWriteAck: true,
					Names: []string{"x"}, OriginalAction: 3, Has: ^protocol.Fields(0),
				})
				p.expect(t, "REQUEST name=add id=1 data=1"+tc.want)
				w.Handle(p, &protocol.Message{
					Topic: protocol.TopicRPC, Action: respond, Name: "add", CorrelationID: "1", Data: "1",
					RequestorName: "root", IsAck: true, IsError: true, OriginalAction: 3, Has: ^protocol.Fields(0),
				})
				c.expect(t, "RESPONSE name=add id=1 data=1")
			})
		})
	}
}

func TestACorrelationIDThatIsInUseIsRefused(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		p, c := w.provider(), w.client()
		w.do(c, request, "1", "")
		w.do(c, request, "1", "")
		c.expect(t, refused("REQUEST", "1"))
		p.expect(t, "REQUEST name=add id=1")
		w.do(p, respond, "1", "1")
		w.do(c, request, "1", "") // free again
		p.expect(t, "REQUEST name=add id=1")
		c.expect(t, end("RESPONSE", "1")+" data=1")
	})
}

func TestTwoCallersWithOneIDDoNotMeet(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		p1, p2 := w.provider(), w.provider()
		a, b, c := w.client(), w.client(), w.client()
		w.do(a, request, "1", "")
		forA := asked(t, p1, p2)
		w.do(b, request, "1", "")
		forB := asked(t, p1, p2)
		if forA == forB {
			t.Fatal("one provider has two calls that it cannot tell apart")
		}
		w.do(c, request, "1", "")
		c.expect(t, end("NO_RPC_PROVIDER", "1"))
		w.do(forB, respond, "1", `"b"`)
		w.do(forA, respond, "1", `"a"`)
		a.expect(t, end("RESPONSE", "1")+` data="a"`)
		b.expect(t, end("RESPONSE", "1")+` data="b"`)
		w.do(c, request, "1", "")
		asked(t, p1, p2)
	})
}

func TestALeavingProviderIsARejection(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		p1, p2, c := w.provider(), w.provider(), w.client()
		w.do(c, request, "1", "5")
		first := asked(t, p1, p2)
		w.disconnect(first)
		second := asked(t, p1, p2)
		w.do(second, respond, "1", "1")
		c.expect(t, end("RESPONSE", "1")+" data=1")
		if got := w.Stats(); got.Rejects != 1 || got.Providers != 1 {
			t.Errorf("Stats = %+v", got)
		}
	})
}

func TestAnswersToACallerThatLeftAreDroppedWithoutAnError(t *testing.T) {
	for what, answer := range map[string]func(w *world, p *fake){
		"a response":   func(w *world, p *fake) { w.do(p, accept, "1", ""); w.do(p, respond, "1", "1") },
		"an error":     func(w *world, p *fake) { w.do(p, fail, "1", "1") },
		"a rejection":  func(w *world, p *fake) { w.do(p, reject, "1", "") },
		"a timeout":    func(w *world, p *fake) { time.Sleep(time.Hour); synctest.Wait() },
		"a disconnect": func(w *world, p *fake) { w.disconnect(p) },
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, nil, func(w *world) {
				p, c := w.provider(), w.client()
				w.do(c, request, "1", "")
				p.take()
				second := w.provider()
				w.disconnect(c)
				answer(w, p)
				p.expect(t)
				second.expect(t)
				c.expect(t)
				if got := w.Stats(); got.Running != 0 || got.Abandoned != 1 {
					t.Errorf("Stats = %+v", got)
				}
			})
		})
	}
}

func TestAClientMayCallItself(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		c := w.client()
		w.do(c, request, "1", "") // before it provides: trap 48
		w.bulk(c, protocol.RPCProvide, "0", "add")
		w.do(c, request, "2", "")
		w.do(c, accept, "2", "")
		w.do(c, respond, "2", "1")
		c.expect(t, end("NO_RPC_PROVIDER", "1"), "PROVIDE ack id=0", "REQUEST name=add id=2",
			end("ACCEPT", "2"), end("RESPONSE", "2")+" data=1")
		w.do(c, request, "3", "")
		w.disconnect(c)
		if len(w.clients) != 0 || len(w.providers) != 0 || w.Stats().Running != 0 {
			t.Error("something is left behind")
		}
	})
}

func TestAllProvidersAreChosen(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		c := w.client()
		providers := []*fake{w.provider(), w.provider(), w.provider()}
		for i := range 300 {
			id := fmt.Sprint(i)
			w.do(c, request, id, "")
			w.do(asked(t, providers...), respond, id, "")
		}
		total := 0
		for range c.take() {
			total++
		}
		if total != 300 {
			t.Errorf("%d answers, want 300", total)
		}
		// With three providers none is missed in 300 calls but once in 10^52 runs.
		seen := map[uint64]bool{}
		for i := range 300 {
			w.do(c, request, fmt.Sprint("b", i), "")
			seen[asked(t, providers...).id] = true
		}
		if len(seen) != 3 {
			t.Errorf("%d providers were asked, want 3", len(seen))
		}
	})
}

func TestAClientThatIsGoneIsNotEnlisted(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		p, c := w.client(), w.client()
		p.gone.Store(true)
		w.bulk(p, protocol.RPCProvide, "0", "add")
		w.do(c, request, "1", "")
		c.expect(t, end("NO_RPC_PROVIDER", "1"))
		c.gone.Store(true)
		w.provider()
		w.do(c, request, "1", "")
		if got := w.Stats(); got.Running != 0 {
			t.Errorf("Stats = %+v", got)
		}
	})
}

func TestTimeoutsComeInOrderAndInTime(t *testing.T) {
	inBubble(t, func(c *Config) { c.AckTimeout, c.ResponseTimeout = 100*time.Millisecond, 100*time.Millisecond }, func(w *world) {
		p, c := w.provider(), w.client()
		for i := range 5 {
			w.do(c, request, fmt.Sprint(i), "")
			time.Sleep(10 * time.Millisecond)
		}
		w.do(p, accept, "1", "")
		w.do(p, respond, "2", "")
		synctest.Wait()
		c.expect(t, end("ACCEPT", "1"), end("RESPONSE", "2"))
		time.Sleep(50*time.Millisecond - 1)
		synctest.Wait()
		c.expect(t)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		c.expect(t, end("ACCEPT_TIMEOUT", "0"))
		time.Sleep(time.Second)
		synctest.Wait()
		c.expect(t, end("RESPONSE_TIMEOUT", "1"), end("ACCEPT_TIMEOUT", "3"), end("ACCEPT_TIMEOUT", "4"))
	})
}

// Each call ends exactly once, whatever providers and callers do meanwhile.
func TestManyAtOnceEachCallEndsOnce(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		var busy sync.WaitGroup
		stop := make(chan struct{})
		for g := range 3 {
			busy.Go(func() {
				for round := 0; ; round++ {
					select {
					case <-stop:
						return
					default:
					}
					p := &fake{id: uint64(1000*(g+1) + round), user: auth.User{ID: "p"}}
					w.bulk(p, protocol.RPCProvide, "0", "add")
					for range 20 {
						for _, s := range p.take() {
							_, id, ok := strings.Cut(s, "id=")
							if !ok || !strings.HasPrefix(s, "REQUEST") {
								continue
							}
							switch rand.IntN(3) {
							case 0:
								w.do(p, reject, id, "")
							case 1:
								w.do(p, accept, id, "")
								w.do(p, respond, id, "1")
							}
						}
						time.Sleep(time.Millisecond)
					}
					w.disconnect(p)
				}
			})
		}
		callers := make([]*fake, 4)
		var calling sync.WaitGroup
		for g := range callers {
			c := &fake{id: uint64(g + 1), user: auth.User{ID: "c"}}
			callers[g] = c
			calling.Go(func() {
				for i := range 300 {
					w.do(c, request, fmt.Sprint(i), "1")
					if i%10 == 0 {
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
		calling.Wait()
		time.Sleep(time.Minute)
		close(stop)
		busy.Wait()
		synctest.Wait()
		for _, c := range callers {
			ends := map[string]int{}
			for _, s := range c.take() {
				if strings.HasPrefix(s, "ACCEPT ") {
					continue
				}
				_, rest, _ := strings.Cut(s, "id=")
				id, _, _ := strings.Cut(rest, " ")
				ends[id]++
			}
			for i := range 300 {
				if n := ends[fmt.Sprint(i)]; n != 1 {
					t.Fatalf("call %d of client %d ended %d times", i, c.id, n)
				}
			}
		}
		if len(w.clients) != 0 || len(w.providers) != 0 || w.Stats().Running != 0 {
			t.Errorf("something is left behind: %+v", w.Stats())
		}
	})
}

// quiet is a client that costs nothing.
type quiet struct{ id uint64 }

func (q quiet) Reserve(int) bool                { return true }
func (q quiet) Release(int)                     {}
func (q quiet) ID() uint64                      { return q.id }
func (q quiet) User() *auth.User                { return nobody }
func (q quiet) Gone() bool                      { return false }
func (q quiet) Answer(*protocol.Message)        {}
func (q quiet) AnswerShared(*protocol.Outbound) {}
func (q quiet) Send(*protocol.Outbound)         {}
func (q quiet) Pace()                           {}

var nobody = &auth.User{ID: auth.Anonymous}

var _ sub.Client = quiet{}

// calls returns a call that is made, accepted and answered each time.
func calls() func() {
	r := newRoom(DefaultConfig())
	c, p := quiet{1}, quiet{2}
	r.Handle(p, &protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{"add"}})
	m := func(a protocol.Action, data string) *protocol.Message {
		return &protocol.Message{
			Topic: protocol.TopicRPC, Action: a, Name: "add", CorrelationID: "kx3a-9f", Data: data,
			Has: protocol.HasName | protocol.HasCorrelationID,
		}
	}
	req, acc, res := m(request, `{"a":1,"b":2}`), m(accept, ""), m(respond, "3")
	return func() {
		r.Handle(c, req)
		r.Handle(p, acc)
		r.Handle(p, res)
	}
}

func BenchmarkCall(b *testing.B) {
	call := calls()
	b.ReportAllocs()
	for b.Loop() {
		call()
	}
}

func TestACallAllocatesLittle(t *testing.T) {
	if got := testing.AllocsPerRun(100, calls()); got > 9 {
		t.Errorf("a call allocates %v times, want at most 9", got)
	}
}

// A caller and a provider that is silent, or one client that is both, fill no
// memory.
func TestACallersRunningCallsAreBounded(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		p, c, other := w.provider(), w.client(), w.client()
		data := `"` + strings.Repeat("x", 1<<20) + `"`
		fit := 0
		for i := range 2 * maxRunning >> 20 {
			w.do(c, protocol.RPCRequest, fmt.Sprint(i), data)
			if got := c.take(); len(got) == 0 {
				fit++
			} else if want := fmt.Sprintf("REQUEST_ERROR name=add id=%d data=%s", i, tooManyCalls); len(got) != 1 || got[0] != want {
				t.Fatalf("call %d was answered %q, want nothing or %q", i, got, want)
			}
		}
		if most := maxRunning >> 20; fit >= most || fit < most/2 {
			t.Errorf("%d calls of 1 MB run, want a little less than %d", fit, most)
		}
		w.do(other, protocol.RPCRequest, "of another", data)
		other.expect(t)
		w.do(p, protocol.RPCResponse, "0", "1")
		c.expect(t, "RESPONSE name=add id=0 data=1")
		w.do(c, protocol.RPCRequest, "again", data)
		c.expect(t)
		time.Sleep(DefaultConfig().AckTimeout + 1)
		synctest.Wait()
		c.take()
		for i := range fit {
			w.do(c, protocol.RPCRequest, fmt.Sprint("later", i), data)
		}
		c.expect(t)
		p.take()
	})
}
