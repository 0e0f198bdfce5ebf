package node

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"hadal/auth"
	"hadal/node/endpoint"
	"hadal/protocol"
)

// listening is a stream of server-sent events.
type listening struct {
	t  *testing.T
	r  *bufio.Reader
	id string // the last one that stood alone
}

// listenTo opens a stream; header has pairs of names and values.
func listenTo(t *testing.T, n *running, query string, header ...string) (*listening, *http.Response) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.Addr().String()+"/sse"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return &listening{t: t, r: bufio.NewReader(res.Body)}, res
}

// hear reads the next event, which must be this one; comments are left out.
func (l *listening) hear(want string) {
	l.t.Helper()
	timer := time.AfterFunc(time.Minute, func() { panic("no event came") })
	defer timer.Stop()
	var got strings.Builder
	for {
		line, err := l.r.ReadString('\n')
		if err != nil {
			l.t.Fatalf("waiting for %q: %v", want, err)
		}
		switch {
		case strings.HasPrefix(line, ":"):
			continue
		case line != "\n":
			got.WriteString(line)
			continue
		case got.Len() == 0:
			continue
		case !strings.Contains(got.String(), "data: "):
			l.id = strings.TrimSuffix(strings.TrimPrefix(got.String(), "id: "), "\n")
			got.Reset()
			continue
		}
		if got.String() != want {
			l.t.Fatalf("got %q, want %q", &got, want)
		}
		return
	}
}

func TestAStreamHearsEventsAndRecords(t *testing.T) {
	n := run(t, ruled(`record:
  "*": {create: true, read: true, write: true, delete: true}
  "closed": {create: true, read: false}
`+restOfRules))
	b := login(t, n, "b")
	write := func(action protocol.Action, path, data string) {
		m := protocol.Message{Topic: protocol.TopicRecord, Action: action, Name: "r/ü", Path: path, Data: data, Version: -1, IsWriteAck: true, CorrelationID: "1", Has: protocol.HasVersion | protocol.HasCorrelationID}
		if path != "" {
			m.Has |= protocol.HasPath
		}
		b.say(m)
		b.hear(protocol.TopicRecord, protocol.RecordWriteAcknowledgement)
	}
	write(protocol.RecordCreateAndUpdate, "", "{\n\"a\":1}")
	s, res := listenTo(t, n, "?event=e&event=f&record=r/%C3%BC&record=closed")
	if res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		t.Fatalf("%s, %s", res.Status, res.Header.Get("Content-Type"))
	}
	const first = "id: 1 \"r/\\u00fc\"\nevent: record\ndata: {\"name\":\"r/\\u00fc\",\"version\":1,\"data\":{ \"a\":1}}\n"
	const denied = "event: denied\ndata: {\"name\":\"closed\",\"topic\":\"record\",\"reason\":\"MESSAGE_DENIED\"}\n"
	// The denial is the door's, and so comes first.
	s.hear(denied)
	s.hear(first)
	write(protocol.RecordPatch, "b", "2")
	second := "id: 2 \"r/\\u00fc\"\nevent: record\ndata: {\"name\":\"r/\\u00fc\",\"version\":2,\"data\":{ \"a\":1,\"b\":2}}\n"
	s.hear(second)
	// The id of both records comes behind, mostly before an event of f.
	for give := time.Now().Add(time.Minute); !strings.HasSuffix(s.id, " 2.-"); {
		if time.Now().After(give) {
			t.Fatalf("the last id is %q", s.id)
		}
		b.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "f", Data: `[1]`})
		s.hear("event: event\ndata: {\"name\":\"f\",\"data\":[1]}\n")
	}
	both, _ := listenTo(t, n, "?event=f&record=r/%C3%BC&record=closed", "Last-Event-ID", s.id)
	both.hear(denied)
	// Who has the version that there is, is not sent it again; who has an older one, is.
	again, _ := listenTo(t, n, "?record=r/%C3%BC", "Last-Event-ID", "2 \"r/\\u00fc\"")
	older, _ := listenTo(t, n, "?record=r/%C3%BC", "Last-Event-ID", "1 \"r/\\u00fc\"")
	older.hear(second)
	third := strings.ReplaceAll(strings.ReplaceAll(second, `"b":2`, `"b":3`), "2 \"r", "3 \"r")
	third = strings.Replace(third, `"version":2`, `"version":3`, 1)
	_, res = listenTo(t, n, "?record=r/%C3%BC&event=x", "Origin", "https://foreign.example")
	if res.Header.Get("Access-Control-Allow-Origin") != "https://foreign.example" {
		t.Error("a page that may connect cannot read the stream")
	}
	write(protocol.RecordPatch, "b", "3")
	older.hear(third)
	again.hear(third)
	both.hear(third)
	b.say(protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordDelete, Name: "r/ü"})
	again.hear("event: deleted\ndata: {\"name\":\"r/\\u00fc\"}\n")
}

// hearEnd reads until the stream has ended.
func (l *listening) hearEnd() {
	l.t.Helper()
	timer := time.AfterFunc(2*time.Minute, func() { panic("the stream did not end") })
	defer timer.Stop()
	_, _ = io.Copy(io.Discard, l.r) // however it ends
}

func TestAStreamThatNobodyReadsIsCutOff(t *testing.T) {
	n := run(t, nil)
	slow, _ := listenTo(t, n, "?event=e")
	other, _ := listenTo(t, n, "?event=f")
	b := login(t, n, "b")
	waitFor(t, "both have subscribed", func() bool { return n.eventSubs.Stats().Subscriptions == 2 })
	const most = 400 // many times what the queue and the sockets may take
	data := `"` + strings.Repeat("x", 256<<10) + `"`
	sent := 0
	for n.endpoint.Stats().Closed[endpoint.SlowConsumer.String()] == 0 {
		if sent++; sent > most {
			t.Fatalf("%d events of %d bytes wait for who does not read", most, len(data))
		}
		b.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "e", Data: data})
		b.say(protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionPing})
		b.hear(protocol.TopicConnection, protocol.ConnectionPong)
	}
	slow.hearEnd()
	b.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "f", Data: `1`})
	other.hear("event: event\ndata: {\"name\":\"f\",\"data\":1}\n")
	metricsHave(t, n, `hadal_connections_closed_total{reason="slow consumer"} 1`)
}

func TestAStreamIsRefusedBeforeItBegins(t *testing.T) {
	n := run(t, func(c *Config) {
		c.Auth = []auth.Config{{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{"ann": {Password: "pw"}}}}}
		c.HTTPServer.Options.AllowAllOrigins = false
		c.HTTPServer.Options.Origins = []string{"https://app.example.com"}
		c.SSE.MaxNames = 2
	})
	for name, c := range map[string]struct {
		query  string
		header []string
		want   int
	}{
		"nobody":           {"?event=a", nil, 401},
		"a wrong password": {"?event=a", []string{"Authorization", "Basic YW5uOm5v"}, 403},
		"the right one":    {"?event=a", []string{"Authorization", "Basic YW5uOnB3"}, 200},
		"a foreign page":   {"?event=a", []string{"Authorization", "Basic YW5uOnB3", "Origin", "https://evil.example"}, 403},
		"no name":          {"", []string{"Authorization", "Basic YW5uOnB3"}, 400},
		"an empty name":    {"?record=", []string{"Authorization", "Basic YW5uOnB3"}, 400},
		"too many names":   {"?event=a&event=b&record=c", []string{"Authorization", "Basic YW5uOnB3"}, 413},
	} {
		if _, res := listenTo(t, n, c.query, c.header...); res.StatusCode != c.want {
			t.Errorf("%s: %s, want %d", name, res.Status, c.want)
		}
	}
}
