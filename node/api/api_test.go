package api

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth"
	"hadal/auth/vault"
	"hadal/protocol"
)

func TestCommandsThatAreNoneAreRefused(t *testing.T) {
	for command, says := range map[string]string{
		`7`:                                  "must be an object",
		`{"action":"read"}`:                  "topic",
		`{"topic":"record"}`:                 "action",
		`{"topic":"record","action":"rea"}`:  "record read, record head",
		`{"topic":"x","action":"read"}`:      "event emit",
		`{"topic":"record","action":"read"}`: "recordName",
		`{"topic":"record","action":"read","recordName":""}`:                                      "recordName",
		`{"topic":"record","action":"read","recordName":7}`:                                       "recordName",
		`{"topic":"record","action":"read","recordName":"r","data":1}`:                            `"data": is no property`,
		`{"topic":"record","action":"read","listName":"r"}`:                                       `"listName": is no property`,
		`{"topic":"event","action":"emit","eventName":"e","` + strings.Repeat("x", 99) + `":1}`:   "…",
		`{"topic":"record","action":"write","recordName":"r"}`:                                    "data",
		`{"topic":"record","action":"write","recordName":"r","data":"x"}`:                         "data",
		`{"topic":"record","action":"write","recordName":"r","data":null,"path":""}`:              "data",
		`{"topic":"record","action":"write","recordName":"r","path":7,"data":1}`:                  "path",
		`{"topic":"record","action":"write","recordName":"r","path":"a"}`:                         "data",
		`{"topic":"record","action":"write","recordName":"r","data":{},"version":1.5}`:            "version",
		`{"topic":"record","action":"write","recordName":"r","data":{},"version":-2}`:             "version",
		`{"topic":"record","action":"write","recordName":"r","data":{},"version":"1"}`:            "version",
		`{"topic":"record","action":"write","recordName":"r","data":{},"version":99999999999}`:    "version",
		`{"topic":"record","action":"notify","recordNames":"r"}`:                                  "recordNames",
		`{"topic":"record","action":"notify","recordNames":[1]}`:                                  "recordNames",
		`{"topic":"record","action":"notify","recordNames":[""]}`:                                 "recordNames",
		`{"topic":"list","action":"write","listName":"l","data":[1]}`:                             "data",
		`{"topic":"list","action":"write","listName":"l","data":["a"],"path":"x"}`:                `"path": is no property`,
		`{"topic":"list","action":"head","listName":"l"}`:                                         "list read, list write, list delete",
		`{"topic":"presence","action":"query","names":"ann"}`:                                     "names",
		`{"topic":"presence","action":"query","names":["ann",null]}`:                              "names",
		`{"topic":"record","action":"read","recordName":"r","topic":"presence","action":"query"}`: `"recordName": is no property`, // the last counts
	} {
		s := newServer(&fake{}, vault.NewMemory(), nil)
		w := post(s, "/api", "ann", nil, strings.NewReader(`{"body":[{"topic":"presence","action":"query"},`+command+`]}`))
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "Failed to parse JIF object at index 1: ") || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s is answered %d %s, want one that says %q", command, w.Code, w.Body, says)
		}
		if got := s.deps.Node.(*fake).names(); got != nil {
			t.Errorf("%s: %q were carried out", command, got)
		}
	}
}

func TestALoginThatFailsHasAStatusThatSaysWhetherToTryAgain(t *testing.T) {
	for token, want := range map[string]struct {
		status int
		says   string
	}{
		"busy": {503, "BUSY"}, "broken": {503, "UNAVAILABLE"}, "nobody": {503, "UNAVAILABLE"},
		"expired": {401, "TOKEN_EXPIRED"}, "talkative": {401, "AUTH_UNSUCCESSFUL: the login was refused: the credentials are missing or wrong\n"},
	} {
		s := newServer(&fake{}, vault.NewMemory(), nil)
		for path, body := range map[string]string{"/api": writes("r"), "/api/auth": `{}`} {
			w := post(s, path, token, nil, strings.NewReader(body))
			if w.Code != want.status || !strings.Contains(w.Body.String(), want.says) || strings.Contains(w.Body.String(), "database") || strings.Contains(w.Body.String(), "store") {
				t.Errorf("%s: %s is answered %d %s", token, path, w.Code, w.Body)
			}
		}
	}
	w := post(newServer(&fake{}, vault.NewMemory(), nil), "/api/auth", "OPEN", nil, strings.NewReader(`{}`))
	if w.Code != 200 || w.Body.String() != `{"token":"for later"}` {
		t.Errorf("a login with a token is answered %d %s", w.Code, w.Body)
	}
}

// What is not answered in time has timed out, and what has not begun by then never does.
func TestARequestHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := &fake{}
		node.receive = func(c *Client, m *protocol.Message) {
			switch m.Name {
			case "silent":
			case "late":
				time.AfterFunc(19*time.Second, func() { acknowledge(c, m) })
			default:
				acknowledge(c, m)
			}
		}
		s := newServer(node, vault.NewMemory(), nil)
		began := time.Now()
		w := post(s, "/api", "ann", nil, strings.NewReader(writes("a", "late", "silent", "never")))
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("the answer took %v", took)
		}
		s.running.Wait()
		if got := node.names(); !slices.Equal(got, []string{"a", "late", "silent"}) || node.open != 0 || node.opened != 0 {
			t.Errorf("the node got %q, and %d clients are left of %d callers", got, node.open, node.opened)
		}
		body := w.Body.String()
		for _, want := range []string{`"PARTIAL_SUCCESS"`, `[{"success":true},{"success":true},{"success":false,"errorTopic":"connection","errorEvent":"HTTP_REQUEST_TIMEOUT"`, "not known", "not carried out"} {
			if !strings.Contains(body, want) {
				t.Errorf("%s has no %s", body, want)
			}
		}
		if s.seats.number() != 0 || s.budget.left.Load() != memory {
			t.Errorf("%d seats and %d bytes are taken", s.seats.number(), memory-s.budget.left.Load())
		}
	})
}

// A room that takes nothing holds up the request's own goroutine, which keeps its seat,
// and not the answer.
func TestANodeThatTakesNothingHoldsUpNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		node := &fake{receive: func(*Client, *protocol.Message) { <-free }}
		s := newServer(node, vault.NewMemory(), func(c *Config) { c.MaxConcurrent = 8 })
		for range 2 { // a quarter
			if w := post(s, "/api", "ann", nil, strings.NewReader(writes("a", "b"))); w.Code != 200 || strings.Count(w.Body.String(), "HTTP_REQUEST_TIMEOUT") != 2 {
				t.Errorf("is answered %d %s", w.Code, w.Body)
			}
		}
		if w := post(s, "/api", "ann", nil, strings.NewReader(writes("a"))); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
			t.Errorf("a third request is answered %d %s", w.Code, w.Body)
		}
		for _, user := range []string{"bob", "cid", "dan"} {
			post(s, "/api", user, nil, strings.NewReader(writes("a")))
			post(s, "/api", user, nil, strings.NewReader(writes("a")))
		}
		if w := post(s, "/api", "eve", nil, strings.NewReader(writes("a"))); w.Code != http.StatusServiceUnavailable {
			t.Errorf("with all seats taken another user is answered %d %s", w.Code, w.Body)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := s.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		select {
		case <-ended:
			t.Error("Run does not wait for what runs")
		default:
		}
		close(free)
		<-ended
		if got := node.names(); len(got) != 8 { // the second commands were not begun
			t.Errorf("the node got %q", got)
		}
		if w := post(s, "/api", "ann", nil, strings.NewReader(writes("a"))); w.Code != 503 || s.seats.number() != 0 {
			t.Errorf("after the end a request is answered %d %s, and %d seats are taken", w.Code, w.Body, s.seats.number())
		}
	})
}

// A panic of a room ends the request, and nothing else.
func TestAPanicEndsItsRequestOnly(t *testing.T) {
	node := &fake{receive: func(c *Client, m *protocol.Message) {
		if m.Name == "mistake" {
			panic("a mistake")
		}
		acknowledge(c, m)
	}}
	s := newServer(node, vault.NewMemory(), nil)
	w := post(s, "/api", "ann", nil, strings.NewReader(writes("a", "mistake", "b")))
	if body := w.Body.String(); w.Code != 200 || !strings.Contains(body, `"PARTIAL_SUCCESS"`) || strings.Count(body, "HTTP_REQUEST_TIMEOUT") != 2 {
		t.Errorf("is answered %d %s", w.Code, body)
	}
	s.running.Wait()
	if st := s.Stats(); st.Panics != 1 || st.Running != 0 || node.open != 0 || node.opened != 0 {
		t.Errorf("afterwards %+v, %d clients, %d callers", st, node.open, node.opened)
	}
}

func TestBodiesAreUnpackedAndBounded(t *testing.T) {
	pack := func(w interface {
		io.Writer
		Close() error
	}, b *bytes.Buffer, text string) io.Reader {
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b
	}
	gz := func(text string) io.Reader { b := new(bytes.Buffer); return pack(gzip.NewWriter(b), b, text) }
	deflate := func(text string) io.Reader { b := new(bytes.Buffer); return pack(zlib.NewWriter(b), b, text) }
	large := `{"body":[` + strings.Repeat(" ", 2<<20) + `]}`
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	for name, c := range map[string]struct {
		encoding string
		body     io.Reader
		status   int
	}{
		"plain":                {"", strings.NewReader(writes("r")), 200},
		"said to be so":        {"identity", strings.NewReader(writes("r")), 200},
		"gzip":                 {"gzip", gz(writes("r")), 200},
		"deflate":              {"deflate", deflate(writes("r")), 200},
		"brotli":               {"br", strings.NewReader(writes("r")), 415},
		"gzip that is none":    {"gzip", strings.NewReader(writes("r")), 400},
		"gzip cut short":       {"gzip", io.LimitReader(gz(writes("r")), 20), 400},
		"too large":            {"", strings.NewReader(large), 413},
		"unpacked, too large":  {"gzip", gz(large), 413},
		"unpacked, very large": {"deflate", deflate(strings.Repeat("[", 8<<20)), 413},
		"of unknown length":    {"", io.MultiReader(strings.NewReader(large)), 413},
		"deep":                 {"", strings.NewReader(`{"body":` + deep + `}`), 400},
		"deep authData":        {"", strings.NewReader(`{"authData":` + deep + `,"body":[1]}`), 400},
		"a hundred thousand":   {"", strings.NewReader(`{"body":[` + strings.Repeat("1,", 100_000) + `1]}`), 413},
		"many small ones":      {"", strings.NewReader(`{"body":[` + strings.Repeat("{},", 9_999) + `{}]}`), 400},
	} {
		s := newServer(&fake{}, vault.NewMemory(), nil)
		w := post(s, "/api", "ann", map[string]string{"Content-Encoding": c.encoding}, c.body)
		if w.Code != c.status {
			t.Errorf("%s: is answered %d %.200s, want %d", name, w.Code, w.Body, c.status)
		}
		s.running.Wait()
		if left := s.budget.left.Load(); left != memory {
			t.Errorf("%s: %d bytes are taken for good", name, memory-left)
		}
	}
}

// A batch as large as may be, of commands that are all denied or all succeed.
func TestALargeBatchIsAnswered(t *testing.T) {
	s := newServer(&fake{}, vault.NewMemory(), nil)
	w := post(s, "/api", "ann", nil, strings.NewReader(writes(slices.Repeat([]string{"r"}, 10_000)...)))
	if w.Code != 200 || strings.Count(w.Body.String(), `{"success":true}`) != 10_000 || !strings.HasPrefix(w.Body.String(), `{"result":"SUCCESS"`) {
		t.Errorf("is answered %d %.200s", w.Code, w.Body)
	}
	s.running.Wait()
	if got := s.Stats().Commands; got[[3]string{"record", "write", "done"}] != 10_000 || len(got) != 1 {
		t.Errorf("counted are %v", got)
	}
}

// When nothing is left of the memory for answers, reads say so, and writes are not made
// whose answers would have no place.
func TestAnswersAreBounded(t *testing.T) {
	const whole = 4 << 20 // of a smaller budget
	record := `"` + strings.Repeat("x", 64<<10) + `"`
	node := &fake{receive: func(c *Client, m *protocol.Message) {
		if m.Action == protocol.RecordRead {
			c.AnswerShared(&protocol.Outbound{Message: protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordReadResponse, Data: record}})
			return
		}
		acknowledge(c, m)
	}}
	s := newServer(node, vault.NewMemory(), nil)
	s.budget.left.Store(whole)
	read := slices.Repeat([]string{`{"topic":"record","action":"read","recordName":"r"}`}, 100)
	w := post(s, "/api", "ann", nil, strings.NewReader(`{"body":[`+strings.Join(read, ",")+`,`+writes("w")[9:]))
	if w.Code != 200 || w.Body.Len() > whole/2+64<<10 || !strings.Contains(w.Body.String(), "ANSWER_TOO_LARGE") || !strings.Contains(w.Body.String(), record) {
		t.Errorf("is answered %d with %d bytes", w.Code, w.Body.Len())
	}
	s.running.Wait()
	if left := s.budget.left.Load(); left != whole {
		t.Errorf("%d bytes are taken for good", whole-left)
	}
	// With nothing left at all, a small request is served, and a large one told to wait.
	s.budget.left.Store(0)
	before := len(node.names())
	if w := post(s, "/api", "ann", nil, strings.NewReader(writes("w"))); w.Code != 200 || !strings.Contains(w.Body.String(), "SUCCESS") {
		t.Errorf("a small request is answered %d %s", w.Code, w.Body)
	}
	if w := post(s, "/api", "ann", nil, strings.NewReader(writes(strings.Repeat("r", 20<<10)))); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("a large request is answered %d %s", w.Code, w.Body)
	}
	w = post(s, "/api", "ann", nil, strings.NewReader(writes(slices.Repeat([]string{"w"}, 24)...)))
	made := strings.Count(w.Body.String(), `{"success":true}`)
	if told := strings.Count(w.Body.String(), "ANSWER_TOO_LARGE"); w.Code != 200 || made+told != 24 || told == 0 {
		t.Errorf("a request between is answered %d %s", w.Code, w.Body)
	}
	s.running.Wait()
	if got := len(node.names()) - before - 1; got != made {
		t.Errorf("%d writes were made, %d were told so", got, made)
	}
}

// A body that trickles is given up when the port's time for a request is over.
func TestASlowBodyIsGivenUp(t *testing.T) {
	s := newServer(&fake{}, vault.NewMemory(), nil)
	h := s.Routes()["/api"]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The port's own begins with the request; ours when it is certain to be here.
		if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Error(err)
		}
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	nc, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(nc, "POST /api HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(nc) // the server hangs up
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
		t.Errorf("is answered %s", answer)
	}
	if left := s.budget.left.Load(); left != memory {
		t.Errorf("%d bytes are taken for good", memory-left)
	}
}

// A request may take longer than the port gives requests of other kinds.
func TestALateAnswerIsWritten(t *testing.T) {
	node := &fake{receive: func(c *Client, m *protocol.Message) {
		time.AfterFunc(200*time.Millisecond, func() { acknowledge(c, m) })
	}}
	s := newServer(node, vault.NewMemory(), nil)
	h := s.Routes()["/api"]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		soon, rc := time.Now().Add(20*time.Millisecond), http.NewResponseController(w)
		if err := errors.Join(rc.SetReadDeadline(soon), rc.SetWriteDeadline(soon)); err != nil {
			t.Error(err)
		}
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	resp, err := http.Post(srv.URL+"/api", "application/json", strings.NewReader(writes("r")))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != `{"result":"SUCCESS","body":[{"success":true}]}` {
		t.Errorf("is answered %s, %v", text, err)
	}
	s.running.Wait()
}

// Before the node can serve, and of whoever has no name, requests are told so or counted
// by address.
func TestRequestsWaitForTheNode(t *testing.T) {
	ready := false
	s := newServer(&fake{}, vault.NewMemory(), nil)
	s.deps.Ready = func() bool { return ready }
	if w := post(s, "/api", "ann", nil, strings.NewReader(writes("r"))); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("is answered %d %s", w.Code, w.Body)
	}
	ready = true
	if w := post(s, "/api", "ann", nil, strings.NewReader(writes("r"))); w.Code != 200 {
		t.Errorf("then is answered %d %s", w.Code, w.Body)
	}
	s.running.Wait()
	for _, user := range []string{auth.Anonymous, "ann"} {
		c := Caller{User: &auth.User{ID: user}, RemoteAddr: "2001:db8::1"}
		if got, want := c.whose(), map[string]string{auth.Anonymous: "a2001:db8::", "ann": "uann"}[user]; got != want {
			t.Errorf("%s takes the seats of %q, want %q", user, got, want)
		}
	}
	want := map[[2]string]uint64{{"post", "5xx"}: 1, {"post", "2xx"}: 1}
	if got := s.Stats(); !maps.Equal(got.Requests, want) || got.Logins["accepted"] != 1 {
		t.Errorf("counted are %+v", got)
	}
}
