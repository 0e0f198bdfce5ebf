package node

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// tongue is how a test speaks a dialect whose frames are text.
type tongue struct {
	path, challenge, accepted string
	login, in                 string
	ping, pong                string
}

var tongues = map[string]tongue{
	"text": {
		path: "/deepstream-v3", accepted: "C¦A+", login: `A¦REQ¦{"username":"eve"}+`, in: "A¦A+", ping: "C¦PI+", pong: "C¦PO+",
	},
	"json": {
		path: "/deepstream-json", challenge: `{"topic":2,"action":5,"url":"x"}`, accepted: `{"topic":2,"action":4}`,
		login: `{"topic":3,"action":2,"parsedData":{"username":"eve"}}`, in: `{"topic":3,"action":3}`,
		ping: `{"topic":2,"action":2}`, pong: `{"topic":2,"action":3}`,
	},
}

// arrive opens a connection, and logs in if it is to.
func (to tongue) arrive(t *testing.T, n *running, in bool) *speaker {
	t.Helper()
	s := speak(t, n, to.path)
	if to.challenge != "" {
		s.say(to.challenge)
	}
	s.want(to.accepted)
	if in {
		s.say(to.login)
		s.want(to.in)
	}
	return s
}

// alive says that the connection goes on as if nothing had been.
func (to tongue) alive(s *speaker, in bool) {
	s.t.Helper()
	if in {
		s.say(to.ping)
		s.want(to.pong)
		return
	}
	s.say(to.login)
	s.want(to.in)
}

// begin writes the beginning of a frame of that many bytes.
func (s *speaker) begin(size int) {
	s.t.Helper()
	b := binary.BigEndian.AppendUint64([]byte{0x81, 0x80 | 127}, uint64(size))
	if _, err := s.ws.NetConn().Write(append(b, "maskhalf of i"...)); err != nil {
		s.t.Fatal(err)
	}
}

// What no client of text or JSON sends by mistake, before and after its login, is answered or ends
// the connection. Nothing is kept of it, and others are served meanwhile.
func TestHostileFramesOfTextAndJSONHarmNobody(t *testing.T) {
	const many = 100_000
	deep := strings.Repeat("[", many) + strings.Repeat("]", many)
	n := run(t, func(c *Config) {
		c.LogLevel = LogOff
		c.Records.Store = "memory" // how fast a disk is is not the question
	})
	good := newServed(t, n)
	before := settled()
	for dialect, to := range tongues {
		for in, most := range map[bool]int{false: 32 << 10, true: 1 << 20} {
			s := to.arrive(t, n, in)
			s.begin(most + 1)
			if _, err := s.read(); !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
				t.Errorf("%s, logged in %v: a frame of %d bytes ended in %v", dialect, in, most+1, err)
			}
			s = to.arrive(t, n, in)
			s.begin(most)
			_ = s.ws.Close() // and leaves
		}
	}
	for _, tt := range []struct {
		name, dialect string
		in            bool // it has logged in
		frame         string
		want          string // how each answer begins
		times         int    // how many there are
		closed        int    // the code; 0 when it goes on
	}{
		{"a cut message", "text", false, `A¦REQ¦{"usern`, "A¦E¦INVALID_AUTH_DATA¦U+", 1, websocket.ClosePolicyViolation},
		{"a cut message", "text", true, `R¦CU¦r¦-1¦{"a":`, `R¦E¦INVALID_MESSAGE_DATA¦{"a":+`, 1, 0},
		{"a value of unknown type", "text", true, "E¦EVT¦e¦Zx+", "E¦E¦INVALID_MESSAGE_DATA¦e+", 1, 0},
		{"a patch of unknown type", "text", true, "R¦P¦r¦1¦a¦Zx+", "R¦E¦INVALID_MESSAGE_DATA¦?Zx+", 1, 0},
		{"no data where data is", "text", true, "E¦EVT¦e¦+", "", 0, 0},
		{"a list of names that is none", "text", true, "U¦S¦1¦[+U¦Q¦2¦{+", "", 0, 0},
		{"null", "json", false, "null", "", 0, websocket.CloseProtocolError},
		{"null", "json", true, "null", "", 0, websocket.CloseProtocolError},
		{"a list of names that is missing", "json", true, `{"topic":4,"action":3,"correlationId":"1"}`, `{"topic":4,"action":3,"correlationId":"1","isAck":true}`, 1, 0},
		{"a patch without a value", "text", true, `R¦P¦r¦1¦path`, "R¦E¦INVALID_MESSAGE_DATA¦?+", 1, 0},
		{"a cut message", "json", false, `{"topic":3,"act`, "", 0, websocket.CloseProtocolError},
		{"a cut message", "json", true, `{"topic":5,"action":10,"name":"r`, "", 0, websocket.CloseProtocolError},

		{"many messages", "text", false, strings.Repeat("E¦S¦e+", 4000), "", 0, websocket.ClosePolicyViolation},
		{"many messages", "text", true, strings.Repeat("E¦EVT¦e+", many), "", 0, 0},
		{"many refusals", "text", true, strings.Repeat("E¦EVT¦+", 2000), "E¦E¦INVALID_MESSAGE_DATA+", 2000, 0}, // each is waited for
		{"many pings", "text", true, strings.Repeat("C¦PI+", many), "C¦PO+", many, 0},
		{"a list of messages", "json", false, "[" + strings.Repeat("{},", 8000) + "{}]", `{"topic":3,"action":101}`, 1, 0},
		{"a list of messages", "json", true, "[" + strings.Repeat("{},", many) + "{}]", `{"topic":1,"action":1`, 1, 0},

		{"deep JSON", "text", false, "A¦REQ¦" + deep[:15_000] + "+", "A¦E¦INVALID_AUTH_DATA¦U+", 1, websocket.ClosePolicyViolation},
		{"deep JSON", "text", true, "E¦EVT¦e¦O" + deep + "+", "E¦E¦INVALID_MESSAGE_DATA¦e+", 1, 0},
		{"deep JSON in a record", "text", true, "R¦CU¦r¦-1¦" + deep + `¦{"writeSuccess":true}+`, "R¦WA¦r¦[-1]¦SINVALID_MESSAGE_DATA+R¦E¦INVALID_MESSAGE_DATA¦[[", 1, 0},
		{"deep JSON in a patch", "text", true, "R¦P¦r¦1¦p¦O" + strings.Repeat(`{"a":`, many) + "+", `R¦E¦INVALID_MESSAGE_DATA¦{"a":{`, 1, 0},
		{"a deep path", "text", true, "R¦P¦r¦1¦" + strings.Repeat("a.", many) + "a¦N1+", "R¦E¦INVALID_MESSAGE_DATA¦1+", 1, 0},
		{"deep JSON", "json", false, deep[:15_000], "", 0, websocket.CloseProtocolError},
		{"deep JSON", "json", true, `{"topic":4,"action":2,"name":"e","parsedData":` + deep + `}`, "", 0, websocket.CloseProtocolError},
		{"deep JSON in a text", "json", true, `{"topic":4,"action":2,"name":"e","data":"` + deep + `"}`, `{"topic":4,"action":105,"isError":true,"name":"e"`, 1, 0},
	} {
		who := map[bool]string{false: " of a stranger: ", true: " of a client: "}[tt.in]
		t.Run(tt.dialect+who+tt.name, func(t *testing.T) {
			to := tongues[tt.dialect]
			s := to.arrive(t, n, tt.in)
			s.say(tt.frame)
			for i := range tt.times {
				if got, err := s.read(); err != nil || !strings.HasPrefix(got, tt.want) {
					t.Fatalf("answer %d is %.100s %v, want %s", i, got, err, tt.want)
				}
			}
			if tt.closed == 0 {
				to.alive(s, tt.in)
			} else if got, err := s.read(); !websocket.IsCloseError(err, tt.closed) {
				t.Errorf("got %.100s %v, want close code %d", got, err, tt.closed)
			}
			_ = s.ws.Close() // it may be closed
		})
	}
	good.stop()
	if got := n.endpoint.Stats().Panics; got != 0 {
		t.Errorf("%d panics", got)
	}
	waitFor(t, "they have gone", func() bool { return n.endpoint.Stats().Open == 2 })
	if grown := settled() - before; grown > 32<<20 {
		t.Errorf("memory has grown by %d bytes", grown)
	}
	t.Logf("%d requests of others were answered meanwhile", good.answered)
}
