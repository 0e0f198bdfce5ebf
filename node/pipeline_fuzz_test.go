package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hadal/auth"
	"hadal/auth/vault"
	"hadal/cluster"
	"hadal/node/record"
	"hadal/protocol"
	"hadal/protocol/jsonpath"
	"hadal/store"
)

// secret is the only user who may hear of what carries its name: the record state/closed
// and the events under closed/. Whoever else is told of that name has heard too much.
const secret = "sesame"

// keptRules are those of fuzzNode.
const keptRules = `
record:
  "*": {create: true, read: true, write: true, delete: true, listen: true, notify: true}
  "state/closed": {create: "user.id === 'sesame'", read: "user.id === 'sesame'", write: "user.id === 'sesame'", delete: false, notify: false}
event:
  "*": {publish: true, subscribe: true, listen: true}
  "closed/$x": {publish: true, subscribe: false, listen: true}
rpc: {"*": {provide: true, request: true}}
presence: {"*": {allow: true}}
`

// witness is a client that counts what it is sent, and looks whether each of it
// can be read, and may be.
type witness struct {
	t    testing.TB
	id   uint64
	user *auth.User
	gone atomic.Bool

	answers atomic.Int64
}

func (w *witness) Reserve(int) bool                  { return true }
func (w *witness) Release(int)                       {}
func (w *witness) ID() uint64                        { return w.id }
func (w *witness) User() *auth.User                  { return w.user }
func (w *witness) Gone() bool                        { return w.gone.Load() }
func (w *witness) Pace()                             {}
func (w *witness) AnswerShared(o *protocol.Outbound) { w.look(&o.Message, o.Result) }
func (w *witness) Send(o *protocol.Outbound)         { w.look(&o.Message, o.Result) }
func (w *witness) Answer(m *protocol.Message)        { w.answers.Add(1); w.look(m, "") }

func (w *witness) look(m *protocol.Message, result string) {
	for _, f := range []protocol.Form{protocol.FormText, protocol.FormJSON, protocol.FormMQTT, protocol.FormMQTT5, protocol.FormSSE} {
		_ = protocol.EncodeFrame(f, m, result) // whatever it is, it does not panic
	}
	var back protocol.Message
	if err := protocol.Decode(protocol.Append(nil, m), &back); err != nil {
		w.t.Errorf("%s %s cannot be read: %v", m.Topic, m.Action.Name(m.Topic), err)
	}
	echo := m.Topic == protocol.TopicRecord && m.Action == protocol.RecordInvalidMessageData
	if m.Data != "" && !echo && !jsonpath.ValidJSON(m.Data) {
		w.t.Errorf("%s %s carries %q, which is not JSON", m.Topic, m.Action.Name(m.Topic), m.Data)
	}
	if w.user.ID != secret && (strings.Contains(m.Data, secret) || strings.Contains(result, secret)) {
		w.t.Errorf("%s %s of %q tells %s what the rules keep from it", m.Topic, m.Action.Name(m.Topic), m.Name, w.user.ID)
	}
}

// fuzzNode is a node's pipeline with all its rooms, which run, and no socket.
func fuzzNode(t testing.TB) (n *Node, stop func()) {
	cfg := Default()
	cfg.RPC.ProvideRequestorName = true
	cfg.MQTT.Enabled, cfg.MQTT.Port, cfg.MQTT.RecordPrefixes = true, -1, []string{"state/"}
	ruled(keptRules)(&cfg)
	n, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	records := record.New(cfg.Record, cfg.Records, record.Deps{
		Table: cluster.NewSoloInMemory("fuzz"), Bus: cluster.Alone{}, Subs: n.recordSubs, Listen: n.recordListen,
		Open:  func(context.Context, int) (store.Store, error) { return store.NewMemory(), nil },
		Rules: n.rules, Log: n.log, Observe: func(time.Duration) {},
	})
	n.pipe.rooms[protocol.TopicRecord] = records
	n.record = records
	n.vault.Put(vault.NewMemory())
	close(n.started)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{records.Run, n.rpc.Run, n.eventListen.Run, n.recordListen.Run, n.runAPI} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("Run = %v", err)
			}
		})
	}
	return n, func() {
		cancel()
		wg.Wait()
	}
}

// frames cuts data into frames: two bytes of length, little endian, before each.
func frames(data []byte) [][]byte {
	var all [][]byte
	for len(data) >= 2 {
		n := min(int(binary.LittleEndian.Uint16(data)), len(data)-2)
		all = append(all, data[2:2+n])
		data = data[2+n:]
	}
	return all
}

// decoders are the dialects whose frames are messages. After them come those of attacks.
var decoders = []func(frame []byte, hand func(*protocol.Message)) error{
	func(frame []byte, hand func(*protocol.Message)) error {
		var m protocol.Message
		err := protocol.Decode(frame, &m)
		if err == nil {
			hand(&m)
		}
		return err
	},
	protocol.Text{}.Decode,
	protocol.JSON{}.Decode,
}

// FuzzPipeline sends any frames of two clients, of any dialect, through every room.
func FuzzPipeline(f *testing.F) {
	join := func(messages ...protocol.Message) []byte {
		var b []byte
		for i := range messages {
			frame := protocol.Append(nil, &messages[i])
			b = append(binary.LittleEndian.AppendUint16(b, uint16(len(frame))), frame...)
		}
		return b
	}
	names := []string{"a", "a/b", "hadal/x", "a"}
	var everything []protocol.Message
	for _, topic := range []protocol.Topic{protocol.TopicEvent, protocol.TopicRecord, protocol.TopicRPC, protocol.TopicPresence} {
		for action := range protocol.Action(128) {
			if !action.Known(topic) {
				continue
			}
			for _, data := range []string{``, `{}`, `[{"path":"a[1].b","data":{"c":null}},{"path":"d"}]`, `{oops`} {
				m := protocol.Message{
					Topic: topic, Action: action, Name: "a", Names: names, Data: data, Path: "x[3].y", Version: -1,
					CorrelationID: "1", Subscription: "a", IsWriteAck: data != "",
					Has: protocol.HasVersion | protocol.HasCorrelationID | protocol.HasName | protocol.HasSubscription,
				}
				if data == `{}` || shapeOf(topic, action) == patch || shapeOf(topic, action) == erase {
					m.Has |= protocol.HasPath
				}
				everything = append(everything, m)
				f.Add(uint8(0), join(m, m))
			}
		}
	}
	f.Add(uint8(0), join(everything...))
	texts := func(frames ...string) []byte {
		var b []byte
		for _, frame := range frames {
			b = append(binary.LittleEndian.AppendUint16(b, uint16(len(frame))), frame...)
		}
		return b
	}
	for _, line := range []string{
		"R¦CR¦a+R¦U¦a¦1¦{}+R¦P¦a¦2¦x[1].y¦N5+R¦P¦a¦3¦x¦U+R¦CU¦a¦-1¦{}¦{\"writeSuccess\":true}+R¦CU¦a¦-1¦p¦Sx¦{}+R¦US¦a+R¦D¦a+",
		"R¦SN¦a+R¦HD¦a+R¦S¦a+R¦L¦a.*+R¦LA¦a.*¦a+R¦LR¦a.*¦a+R¦UL¦a.*+R¦H¦a+R¦P¦a¦1¦x+R¦U¦a¦1¦{oops+",
		"E¦S¦a+E¦EVT¦a¦O{\"b\":1}+E¦EVT¦a¦+E¦EVT¦a¦Xodd+E¦EVT¦a+E¦US¦a+E¦L¦(+E¦L¦.*+E¦LA¦.*¦a+",
		"P¦S¦a+P¦REQ¦a¦1¦U+P¦A¦REQ¦a¦1+P¦RES¦a¦1¦T+P¦REJ¦a¦1+P¦E¦no¦a¦1+P¦US¦a+",
		"U¦S¦S+U¦US¦US+U¦S¦1¦[\"a\"]+U¦US¦1¦[\"a\"]+U¦Q¦Q+U¦Q¦1¦[\"a\",\"b\"]+U¦Q¦1¦{oops+",
	} {
		f.Add(uint8(1), texts(toWire.Replace(line), toWire.Replace(line)))
	}
	var objects []string // one seed of all: each seed costs a node
	for i := range everything {
		frame := string(protocol.EncodeFrame(protocol.FormJSON, &everything[i], ""))
		if start := strings.IndexByte(frame, '{'); start >= 0 {
			objects = append(objects, frame[start:])
		}
	}
	f.Add(uint8(2), texts(objects...))
	f.Add(uint8(3), texts(mqttSeeds("\x04")...))
	f.Add(uint8(4), texts(mqttSeeds("\x05")...))
	f.Add(uint8(5), texts(apiSeeds...))
	f.Fuzz(func(t *testing.T, dialect uint8, data []byte) {
		if bytes.Contains(data, []byte(secret)) {
			t.Skip("the input has the name of the keeper, whose echo proves nothing")
		}
		n, stop := fuzzNode(t)
		kept := &witness{t: t, id: 1 << 32, user: &auth.User{ID: secret}}
		tell := func() {
			n.pipe.receive(kept, &protocol.Message{
				Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: "state/closed", Data: `{"by":"` + secret + `"}`,
				Version: -1, Has: protocol.HasName | protocol.HasVersion | protocol.HasData,
			})
			n.pipe.receive(kept, &protocol.Message{
				Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "closed/x", Data: `"` + secret + `"`, Has: protocol.HasName | protocol.HasData,
			})
		}
		tell()
		switch way := int(dialect) % (len(decoders) + 3); way {
		case len(decoders):
			attackMQTT(t, n, "\x04", frames(data), tell)
		case len(decoders) + 1:
			attackMQTT(t, n, "\x05", frames(data), tell)
		case len(decoders) + 2:
			attackAPI(t, n, frames(data))
		default:
			attackPipeline(t, n, decoders[way], frames(data), tell)
		}
		leave(n, kept)
		if err := n.record.Flush(context.Background()); err != nil {
			t.Errorf("Flush = %v", err)
		}
		stop()
		nothingIsLeft(t, n)
	})
}

// leave ends the clients of a pipeline.
func leave(n *Node, clients ...*witness) {
	for _, c := range clients {
		c.gone.Store(true)
		for _, r := range n.pipe.rooms {
			if r != nil {
				r.Closed(c)
			}
		}
	}
}

// attackPipeline sends what frames of two clients say. tell is called when all is said.
func attackPipeline(t *testing.T, n *Node, decode func([]byte, func(*protocol.Message)) error, frames [][]byte, tell func()) {
	clients := []*witness{{t: t, id: 1, user: &auth.User{ID: "ada"}}, {t: t, id: 2, user: &auth.User{ID: auth.Anonymous}}}
	for _, c := range clients {
		n.presence.Login(c)
	}
	asked := 0
	for i, frame := range frames {
		_ = decode(slices.Clone(frame), func(m *protocol.Message) { // else the connection ends
			if m.Topic < protocol.TopicEvent {
				return // the connection's own
			}
			asked += 1 + len(m.Names)
			n.pipe.receive(clients[i%2], m)
		})
	}
	tell()
	if err := n.record.Flush(context.Background()); err != nil {
		t.Errorf("Flush = %v", err)
	}
	leave(n, clients...)
	// What a message is worth: an ack or a refusal, and for each name a complaint,
	// a word about its provider, an answer, and for calls the callers' answers.
	if got := clients[0].answers.Load() + clients[1].answers.Load(); got > int64(4*asked) {
		t.Errorf("%d answers to %d messages and names, want at most four each", got, asked)
	}
}

// nothingIsLeft looks whether the rooms have forgotten everybody.
func nothingIsLeft(t *testing.T, n *Node) {
	if e, r := n.eventSubs.Stats(), n.recordSubs.Stats(); e.Names+e.Subscriptions+r.Names+r.Subscriptions != 0 {
		t.Errorf("subscriptions are left: events %+v, records %+v", e, r)
	}
	if e, r := n.eventSubs.WildStats(), n.recordSubs.WildStats(); e.Filters+r.Filters != 0 {
		t.Errorf("filters are left: events %+v, records %+v", e, r)
	}
	if p := n.presence.Stats(); p.Users+p.Sockets+p.Subscriptions+p.Global != 0 {
		t.Errorf("presence is left: %+v", p)
	}
	if c := n.rpc.Stats(); c.Providers+c.Names != 0 {
		t.Errorf("providers are left: %+v", c)
	}
	for _, l := range []int{n.eventListen.Stats().Listeners, n.recordListen.Stats().Listeners} {
		if l != 0 {
			t.Errorf("%d listeners are left", l)
		}
	}
	if e, a := n.endpoint.Stats().Panics, n.api.Stats().Panics; e+a != 0 {
		t.Errorf("%d panics of connections and %d of requests were caught", e, a)
	}
}
