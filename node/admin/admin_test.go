package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"hadal/perms"
)

// memory is Records in a map.
type memory struct {
	mu      sync.Mutex
	records map[string]Record // guarded by mu
	broken  error             // what Scan and Names end in; guarded by mu
}

func (m *memory) Get(_ context.Context, name string) (Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[name]
	if !ok {
		return Record{}, fmt.Errorf("get %q: %w", name, ErrNotFound)
	}
	return r, nil
}

func (m *memory) Set(_ context.Context, name, data string) (int32, error) {
	if data == `"explode"` {
		return 0, errors.New("disk on fire")
	}
	if len(data) > 1000 {
		return 0, fmt.Errorf("%w: more than 1000 bytes", ErrInvalid)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	version := int32(0)
	if old, ok := m.records[name]; ok {
		version = old.Version + 1
	}
	m.records[name] = Record{name, version, data}
	return version, nil
}

func (m *memory) Check(rec Record) error {
	if len(rec.Data) > 1000 {
		return fmt.Errorf("%w: more than 1000 bytes", ErrInvalid)
	}
	return nil
}

func (m *memory) Restore(_ context.Context, rec Record) error {
	if err := m.Check(rec); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records[rec.Name] = rec
	return nil
}

func (m *memory) Delete(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.records[name]; !ok {
		return ErrNotFound
	}
	delete(m.records, name)
	return nil
}

func (m *memory) Names(ctx context.Context, prefix string, fn func(string) error) error {
	return m.Scan(ctx, prefix, func(r Record) error { return fn(r.Name) })
}

func (m *memory) Scan(_ context.Context, prefix string, fn func(Record) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(m.records)) {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if err := fn(m.records[name]); err != nil {
			return err
		}
	}
	return m.broken
}

// harness is a server that runs for one test.
type harness struct {
	*Server
	dir     string
	records *memory
	logins  *fakeLogins
	users   *fakeUsers
	cluster *fakeCluster
	rules   *perms.Live
	reasons []Reason // changed only while no request runs
	// explained are other rules than rules, which have records to refer to.
	explained *perms.Live
}

func newHarness(t *testing.T, cfg Config) *harness {
	h := &harness{dir: t.TempDir(), records: &memory{records: map[string]Record{}}, logins: &fakeLogins{all: map[string]Login{}}, users: newFakeUsers(), cluster: &fakeCluster{}}
	load := func(o perms.Options) *perms.Rules {
		rules, err := perms.New(perms.Config{Type: "config", Options: o})
		if err != nil {
			t.Fatal(err)
		}
		return rules
	}
	h.rules = perms.NewLive(load(perms.Options{Permissions: activeRules}), nil, nil)
	h.explained = perms.NewLive(load(perms.Options{Path: "testdata/permissions.yml"}), shelf{h.records}, nil)
	s, err := New(cfg, Deps{
		Socket:  filepath.Join(h.dir, SocketName),
		Records: h.records, Logins: h.logins, Users: h.users,
		Cluster: h.cluster,
		Rules:   h.rules,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hadal_up 1") }),
		Info:    func() any { return map[string]string{"version": "v0"} },
		Health:  NewHealth(func() []Reason { return h.reasons }),
		Log:     slog.New(slog.DiscardHandler),

		Explainer: h.explained,
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Server = s
	return h
}

// serve runs a server until the test ends.
func serve(t *testing.T, cfg Config) *harness {
	t.Helper()
	h := newHarness(t, cfg)
	if err := h.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := os.Lstat(h.Socket()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	return h
}

func (h *harness) client(t *testing.T) *Client {
	c := OverSocket(h.Socket())
	t.Cleanup(c.Close)
	return c
}

func TestRecordsAreReadWrittenAndDeleted(t *testing.T) {
	h := serve(t, Config{})
	c, ctx := h.client(t), t.Context()
	for _, name := range []string{"a", "users//x/../y", "ü? &=#%2F\"\n", ".", "/"} {
		if _, err := c.Get(ctx, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: got %v before it exists, want ErrNotFound", name, err)
		}
		for want := range int32(3) {
			data := fmt.Sprintf("{\"n\":%d,\n\"s\":\"<ü>\"}", want)
			if got, err := c.Set(ctx, name, data); got != want || err != nil {
				t.Errorf("%q: Set = %d, %v, want %d", name, got, err, want)
			}
		}
		got, err := c.Get(ctx, name)
		if want := (Record{name, 2, "{\"n\":2,\n\"s\":\"<ü>\"}"}); got != want || err != nil {
			t.Errorf("Get = %+v, %v, want %+v", got, err, want)
		}
		if err := c.Delete(ctx, name); err != nil {
			t.Errorf("Delete %q: %v", name, err)
		}
		if err := c.Delete(ctx, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("second Delete %q: got %v, want ErrNotFound", name, err)
		}
	}
}

func TestWhatCannotBeARecordIsRefused(t *testing.T) {
	h := serve(t, Config{})
	c, ctx := h.client(t), t.Context()
	for data, want := range map[string]string{
		"":                                    "the data is not JSON",
		"{":                                   "the data is not JSON",
		`"` + strings.Repeat("x", 1000):       "the data is not JSON",
		`"` + strings.Repeat("x", 1000) + `"`: "record is not valid: more than 1000 bytes",
		`"explode"`:                           "disk on fire",
	} {
		if _, err := c.Set(ctx, "a", data); err == nil || err.Error() != want {
			t.Errorf("Set(%.10q): got %v, want %s", data, err, want)
		}
	}
	if _, err := c.Set(ctx, "", "1"); err == nil || !strings.Contains(err.Error(), "name the record") {
		t.Errorf("Set without a name: got %v", err)
	}
	if got := len(h.records.records); got != 0 {
		t.Errorf("%d records were written, want none", got)
	}
}

func TestExportAndImportMoveAllRecordsWithTheirVersions(t *testing.T) {
	from, to := serve(t, Config{}), serve(t, Config{})
	for i := range 1000 {
		name := fmt.Sprintf("list/%04d\n<ü>", i)
		from.records.records[name] = Record{name, int32(i), fmt.Sprintf("{\"i\":%d,\r\n\"deep\":[1,2.50,1e3]}", i)}
	}
	from.records.records["other"] = Record{"other", 7, "null"}

	var names []string
	if err := from.client(t).Names(t.Context(), "list/", func(name string) error {
		names = append(names, name)
		return nil
	}); err != nil || len(names) != 1000 || names[999] != "list/0999\n<ü>" {
		t.Errorf("Names: %d names, %v, want 1000", len(names), err)
	}
	var all bytes.Buffer
	if err := from.client(t).Export(t.Context(), "", func(line []byte) error {
		_, err := all.Write(line)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got, want := bytes.Count(all.Bytes(), []byte("\n")), 1002; got != want {
		t.Fatalf("exported %d lines, want %d", got, want)
	}
	n, err := to.client(t).Import(t.Context(), &all, false)
	if n.Records != 1001 || err != nil {
		t.Fatalf("Import = %d, %v, want 1001", n, err)
	}
	for name, want := range from.records.records {
		if got := to.records.records[name]; got != want {
			t.Errorf("record %q: got %+v, want %+v", name, got, want)
		}
	}
}

func TestOfSeveralLinesForOneRecordTheLastOneStays(t *testing.T) {
	h := serve(t, Config{})
	var lines strings.Builder
	for v := range 500 {
		for _, name := range []string{"a", "b", "c"} {
			fmt.Fprintf(&lines, `{"name":%q,"version":%d,"data":%d}`+"\n", name, v, v)
		}
	}
	if n, err := h.client(t).Import(t.Context(), strings.NewReader(lines.String()), true); n.Records != 1500 || err != nil {
		t.Fatalf("Import = %d, %v, want 1500", n, err)
	}
	for _, name := range []string{"a", "b", "c"} {
		if got, want := h.records.records[name], (Record{name, 499, "499"}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestImportStopsAtTheFirstMistakeAndNamesItsLine(t *testing.T) {
	const good = `{"name":"a","version":1,"data":{}}` + "\n"
	for lines, want := range map[string]string{
		good + "\n" + "{":                             "line 3: not a record as JSON",
		`{"name":"a"}`:                                `line 1: record "a": version is missing`,
		`{"version":1}`:                               "line 1: has no name",
		good + `["a"]`:                                "line 2: not a record as JSON",
		good + "null":                                 "line 2: has no name",
		`{"name":"a","version":-1,"data":1}`:          "version is missing or negative",
		`{"name":"a","version":1}`:                    "data is missing",
		`{"name":"a","version":1.5,"data":1}`:         "not a record as JSON",
		`{"name":"a","version":1,"data":1,"extra":1}`: "extra",
		`{"name":"a","version":1,"data":1} {}`:        "something follows",
		good + `{"name":"b","version":1,"data":"` + strings.Repeat("x", 1000) + `"}`: "line 2: record is not valid",
	} {
		h := serve(t, Config{})
		if _, err := h.client(t).Import(t.Context(), strings.NewReader(lines), false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want an error with %q", lines, err, want)
		}
	}
}

func TestAStreamThatBreaksIsNotTakenForWhole(t *testing.T) {
	h := serve(t, Config{})
	h.records.broken = errors.New("disk on fire")
	collect := func() (int, error) {
		n := 0
		err := h.client(t).Export(t.Context(), "", func([]byte) error { n++; return nil })
		return n, err
	}
	if n, err := collect(); n != 0 || err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("broken before the first record: %d records, %v", n, err)
	}
	for i := range 5000 { // more than fits a buffer
		name := fmt.Sprint("r", i)
		h.records.records[name] = Record{name, 1, `"` + strings.Repeat("x", 100) + `"`}
	}
	if n, err := collect(); err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("broken after the last record: %d records, %v", n, err)
	}
}

func TestHealthSaysWhatIsWrong(t *testing.T) {
	h := serve(t, Config{})
	health := NewHealth(func() []Reason { return h.reasons })
	slow := Reason{Part: "records", Why: "disk is full"}
	closed := Reason{Part: "node", Why: "the node is starting", NoLogin: true}
	for _, c := range []struct {
		reasons             []Reason
		check, alive, ready int
		body                string
	}{
		{nil, 200, 200, 200, `{"ok":true}`},
		{[]Reason{slow}, 200, 200, 503, `{"ok":false,"reasons":[{"part":"records","why":"disk is full"}]}`},
		{[]Reason{slow, closed}, 503, 200, 503,
			`{"ok":false,"reasons":[{"part":"records","why":"disk is full"},{"part":"node","why":"the node is starting","noLogin":true}]}`},
	} {
		h.reasons = c.reasons
		for name, probe := range map[string]struct {
			handler http.Handler
			want    int
		}{"check": {health.Check(), c.check}, "alive": {health.Alive(), c.alive}, "ready": {health.Ready(), c.ready}} {
			if w := request(t, probe.handler, http.MethodGet, "/", nil); w.StatusCode != probe.want {
				t.Errorf("%s with %v: got %d, want %d", name, c.reasons, w.StatusCode, probe.want)
			}
		}
		resp := h.raw(t, http.MethodGet, "/readyz", nil)
		if got := strings.TrimSpace(resp.body); got != c.body || resp.StatusCode != c.ready {
			t.Errorf("/readyz with %v: got %d %s, want %d %s", c.reasons, resp.StatusCode, got, c.ready, c.body)
		}
	}
}

func TestEveryPathAnswersOrSaysThatItIsNotThere(t *testing.T) {
	h := serve(t, Config{})
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/metrics", 200, "hadal_up 1"},
		{"GET", "/info", 200, `{"version":"v0"}`},
		{"GET", "/healthz", 200, `{"ok":true}`},
		{"GET", "/nothing", 404, `{"error":"there is no GET /nothing here"}`},
		{"DELETE", "/info", 404, `{"error":"there is no DELETE /info here"}`},
		{"GET", "/record", 400, `{"error":"name the record: ?name=…"}`},
		{"GET", "/record?name=a", 404, `{"error":"get \"a\": record not found"}`},
	} {
		resp := h.raw(t, c.method, c.path, nil)
		if got := strings.TrimSpace(resp.body); resp.StatusCode != c.status || got != c.body {
			t.Errorf("%s %s: got %d %s, want %d %s", c.method, c.path, resp.StatusCode, got, c.status, c.body)
		}
	}
	info, err := h.client(t).Info(t.Context())
	if want := `{"version":"v0"}`; info != want || err != nil {
		t.Errorf("Info = %s, %v, want %s", info, err, want)
	}
}

func TestWithoutRecordsTheRestIsServed(t *testing.T) {
	h := newHarness(t, Config{})
	h.deps.Records = nil
	api := h.routes(t.Context())
	for path, want := range map[string]int{"/record?name=a": 404, "/export": 404, "/metrics": 200} {
		if got := request(t, api, http.MethodGet, path, nil).StatusCode; got != want {
			t.Errorf("%s: got %d, want %d", path, got, want)
		}
	}
}

func TestTheTCPAddressAsksForItsToken(t *testing.T) {
	h := serve(t, Config{Listen: "127.0.0.1:0", Token: "s3cret"})
	base := "http://" + h.Addr().String()
	for token, want := range map[string]string{"s3cret": "", "": "bearer token", "s3cre": "bearer token", "s3crets": "bearer token"} {
		c, err := OverTCP(base+"/", token)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Info(t.Context())
		c.Close()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("token %q: got %v, want %q", token, err, want)
		}
	}
	if _, err := h.client(t).Info(t.Context()); err != nil {
		t.Errorf("the socket asks for more than the right to open it: %v", err)
	}
}

func TestWithoutATokenWebPagesAreKeptOut(t *testing.T) {
	h := newHarness(t, Config{Listen: "127.0.0.1:0"})
	api := h.guard(h.routes(t.Context()))
	for _, c := range []struct {
		name, host string
		header     map[string]string
		want       int
	}{
		{"a tool", "127.0.0.1:6021", nil, 200},
		{"a tool by name", "localhost:6021", nil, 200},
		{"a tool over IPv6", "[::1]:6021", nil, 200},
		{"a tool without a port", "localhost", nil, 200},
		{"a page whose name was bent to this machine", "evil.example:6021", nil, 403},
		{"a page of another site", "127.0.0.1:6021", map[string]string{"Origin": "https://evil.example"}, 403},
		{"a page that hides its origin", "127.0.0.1:6021", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
	} {
		got := request(t, api, http.MethodGet, "/info", func(r *http.Request) {
			r.Host = c.host
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
		}).StatusCode
		if got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

func TestTheSocketIsForItsOwnerOnly(t *testing.T) {
	h := serve(t, Config{})
	info, err := os.Lstat(h.Socket())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), os.ModeSocket|0o600; got != want {
		t.Errorf("got mode %v, want %v", got, want)
	}
	entries, err := os.ReadDir(h.dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("in the data directory: %v, %v, want the socket alone", entries, err)
	}
}

func TestAStaleSocketIsReplacedAndALivingOneIsNot(t *testing.T) {
	h := newHarness(t, Config{})
	l, err := net.Listen("unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "another node runs") {
		t.Errorf("with a living socket: got %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after a kill
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Listen(t.Context()); err != nil {
		t.Fatalf("with a stale socket: %v", err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(h.socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("with a file in its place: got %v", err)
	}
	if b, err := os.ReadFile(h.socket); string(b) != "precious" || err != nil {
		t.Errorf("the file was touched: %q, %v", b, err)
	}
}

func TestAFailedListenLeavesNothingBehind(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	h := newHarness(t, Config{Listen: taken.Addr().String()})
	if err := h.Serve(t.Context()); err == nil || !strings.Contains(err.Error(), "admin.listen") {
		t.Errorf("on a taken port: got %v", err)
	}
	long := newHarness(t, Config{})
	long.socket = filepath.Join(long.dir, strings.Repeat("x", 100), SocketName)
	if err := os.Mkdir(filepath.Dir(long.socket), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := long.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("with a long path: got %v", err)
	}
	for _, dir := range []string{h.dir, filepath.Dir(long.socket)} {
		if entries, err := os.ReadDir(dir); len(entries) != 0 || err != nil {
			t.Errorf("left behind: %v, %v", entries, err)
		}
	}
}

func TestConfigMistakesNameTheirKey(t *testing.T) {
	for cfg, want := range map[Config]string{
		{}:                                     "",
		{Listen: "127.0.0.1:6021"}:             "",
		{Listen: "[::1]:0"}:                    "",
		{Listen: "localhost:6021"}:             "",
		{Listen: "0.0.0.0:6021", Token: "x"}:   "",
		{Listen: "0.0.0.0:6021"}:               "admin.token: must be set",
		{Listen: ":6021"}:                      "admin.token: must be set",
		{Listen: "my.host:6021"}:               "admin.token: must be set",
		{Listen: "6021"}:                       "admin.listen:",
		{Listen: "127.0.0.1:http"}:             "admin.listen:",
		{Listen: "127.0.0.1:65536"}:            "admin.listen:",
		{Listen: "127.0.0.1:1", Token: "a\nb"}: "admin.token: holds",
	} {
		_, err := New(cfg, Deps{})
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", cfg, err, want)
		}
	}
}

func TestClientsWithoutANodeSaySo(t *testing.T) {
	c := OverSocket(filepath.Join(t.TempDir(), SocketName))
	if _, err := c.Get(t.Context(), "a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a socket: got %v, want one that Is os.ErrNotExist", err)
	}
	for _, base := range []string{"localhost:6021", "ftp://x", "http://", "://"} {
		if _, err := OverTCP(base, ""); err == nil {
			t.Errorf("base %q was taken", base)
		}
	}
}

func FuzzAnyLineIsARecordOrRefused(f *testing.F) {
	f.Add([]byte(`{"name":"a","version":1,"data":{"x":[1,2.50,null]}}`))
	f.Add([]byte(`{"name":"\ud800","version":0,"data":""}`))
	f.Add([]byte("{\"name\":\"a\",\"version\":1,\"data\":{\n}}"))
	f.Add([]byte(`{"name64":"/w==","version":1,"data64":"IHsKfSA="}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseRecord(line)
		if err != nil {
			return
		}
		written, err := r.appendLine(nil)
		if err != nil {
			t.Fatalf("%+v cannot be written: %v", r, err)
		}
		if bytes.Count(written, []byte("\n")) != 1 {
			t.Fatalf("%q is more than one line", written)
		}
		again, err := parseRecord(written)
		if again != r || err != nil {
			t.Fatalf("%+v came back as %+v, %v", r, again, err)
		}
	})
}

// response is an answer that was read.
type response struct {
	*http.Response
	body string
}

// raw sends a request over the socket without Client.
func (h *harness) raw(t *testing.T, method, path string, body io.Reader) response {
	t.Helper()
	c := h.client(t)
	req, err := http.NewRequestWithContext(t.Context(), method, c.base+path, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{resp, string(text)}
}

// request asks a handler without a network.
func request(t *testing.T, h http.Handler, method, path string, change func(*http.Request)) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}
