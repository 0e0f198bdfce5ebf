package node

import (
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"hadal/protocol"
)

// Lines of the text dialect are written as in spec 02: ¦ between words, + at the end.
var (
	toWire   = strings.NewReplacer("¦", "\x1f", "+", "\x1e")
	fromWire = strings.NewReplacer("\x1f", "¦", "\x1e", "+")
)

// speaker is a client of a dialect whose frames are text.
type speaker struct {
	t  *testing.T
	ws *websocket.Conn
}

// speak opens a connection on a path.
func speak(t *testing.T, n *running, path string) *speaker {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+n.Addr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	return &speaker{t, ws}
}

func (s *speaker) say(text string) {
	s.t.Helper()
	if err := s.ws.WriteMessage(websocket.TextMessage, []byte(toWire.Replace(text))); err != nil {
		s.t.Fatal(err)
	}
}

// read is the next frame that is no ping.
func (s *speaker) read() (string, error) {
	_ = s.ws.SetReadDeadline(time.Now().Add(time.Minute)) // the read says it
	for {
		_, b, err := s.ws.ReadMessage()
		if got := fromWire.Replace(string(b)); err != nil || got != "C¦PI+" {
			return got, err
		}
	}
}

func (s *speaker) want(texts ...string) {
	s.t.Helper()
	for _, want := range texts {
		if got, err := s.read(); err != nil || got != want {
			s.t.Fatalf("got %.300s %v, want %s", got, err, want)
		}
	}
}

// speakText is a client of the text dialect that has logged in.
func speakText(t *testing.T, n *running, name string) *speaker {
	t.Helper()
	s := speak(t, n, "/deepstream-v3")
	s.want("C¦A+")
	s.say(`A¦REQ¦{"username":"` + name + `"}+`)
	s.want("A¦A+")
	return s
}

// A path may hold what ends a word of the text dialect, whose clients then get all of the record.
func TestAPatchThatTextCannotSayArrivesAsTheWholeRecord(t *testing.T) {
	n := run(t, nil)
	s := speakText(t, n, "ada")
	s.say("R¦CR¦r+")
	s.want("R¦A¦S¦r+", "R¦R¦r¦0¦{}+")
	p := login(t, n, "bob")
	for i, m := range []protocol.Message{
		{Action: protocol.RecordPatch, Path: "a\x1fb", Data: "1", Has: versioned | protocol.HasPath | protocol.HasData},
		{Action: protocol.RecordPatch, Path: "c", Data: "2", Has: versioned | protocol.HasPath | protocol.HasData},
		{Action: protocol.RecordErase, Path: "a\x1fb", Has: versioned | protocol.HasPath},
	} {
		m.Topic, m.Name, m.Version, m.CorrelationID, m.IsWriteAck = protocol.TopicRecord, "r", int32(i+1), "w", true
		p.say(m)
		p.hear(protocol.TopicRecord, protocol.RecordWriteAcknowledgement)
	}
	s.want(`R¦U¦r¦1¦{"a\u001fb":1}+`, "R¦P¦r¦2¦c¦N2+", `R¦U¦r¦3¦{"c":2}+`)
}

// A write that comes too late is told with the record, and that it asked for an acknowledgement.
func TestATextWriteThatComesTooLateIsToldWhatIsThere(t *testing.T) {
	n := run(t, nil)
	s := speakText(t, n, "ada")
	s.say(`R¦CU¦r¦1¦{"a":1}¦{"writeSuccess":true}+`)
	s.want("R¦WA¦r¦[1]¦L+")
	s.say(`R¦U¦r¦1¦{"a":2}¦{"writeSuccess":true}+R¦P¦r¦1¦a¦N2+`)
	s.want(`R¦E¦VERSION_EXISTS¦r¦1¦{"a":1}¦{"writeSuccess":true}+`, `R¦E¦VERSION_EXISTS¦r¦1¦{"a":1}+`)
}
