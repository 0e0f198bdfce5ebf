package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/google/go-cmp/cmp"

	"hadal/auth"
	"hadal/protocol"
)

// described is a node's API as its own document describes it: every answer is compared
// with that.
type described struct {
	*running
	router routers.Router
}

// describe starts a node whose users are ann and bob, with the password x, and the backend
// billing.
func describe(t *testing.T, change func(*Config)) *described {
	t.Helper()
	n := run(t, func(c *Config) {
		c.Records.Store = "memory"
		c.Auth = []auth.Config{{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{
			"ann": {Password: "x", ClientData: map[string]any{"likes": "red"}, ServerData: map[string]any{"role": "admin"}}, "bob": {Password: "x"},
		}}}}
		if change != nil {
			change(c)
		}
	})
	d := &described{running: n}
	resp, body := d.send(t, http.MethodGet, "/openapi.json", nil, "")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("/openapi.json is answered %d", resp.StatusCode)
	}
	doc, err := openapi3.NewLoader().LoadFromData([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatalf("the document is not valid: %v", err)
	}
	if d.router, err = gorillamux.NewRouter(doc); err != nil {
		t.Fatal(err)
	}
	return d
}

// send asks, and compares the answer with the document.
func (d *described) send(t *testing.T, method, path string, header map[string]string, body string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+d.Addr().String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	for key, value := range header {
		r.Header.Set(key, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if d.router == nil || method != http.MethodGet && method != http.MethodPost {
		return resp, string(text)
	}
	route, params, err := d.router.FindRoute(r)
	if err != nil {
		return resp, string(text) // a path that the document does not name
	}
	if err := openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route},
		Status:                 resp.StatusCode, Header: resp.Header, Body: io.NopCloser(bytes.NewReader(text)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	}); err != nil {
		t.Errorf("%s %s %s is answered %d %s, which is not what the document says: %v", method, path, body, resp.StatusCode, text, err)
	}
	return resp, string(text)
}

// batchAnswer is the answer to a batch.
type batchAnswer struct {
	Result string           `json:"result"`
	Body   []map[string]any `json:"body"`
}

// batch has ann run commands.
func (d *described) batch(t *testing.T, commands ...string) batchAnswer {
	t.Helper()
	return d.batchAs(t, "ann", commands...)
}

func (d *described) batchAs(t *testing.T, user string, commands ...string) (answer batchAnswer) {
	t.Helper()
	resp, text := d.send(t, http.MethodPost, "/api", nil, fmt.Sprintf(`{"authData":{"username":%q,"password":"x"},"body":[%s]}`, user, strings.Join(commands, ",")))
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s is answered %d %s", commands, resp.StatusCode, text)
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if len(answer.Body) != len(commands) {
		t.Fatalf("%d commands have %d answers", len(commands), len(answer.Body))
	}
	return answer
}

// object is a JSON object as the decoder gives it.
func object(t *testing.T, text string) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// Every command, what it is answered when all goes well, and when it does not; one after
// the other, on the same records (spec 04 §7 and §8).
func TestCommandsOfTheAPIAreAnsweredAsTheSpecSays(t *testing.T) {
	d := describe(t, func(c *Config) {
		c.Permission.Type = "config"
		c.Permission.Options.Permissions = map[string]any{
			"record": map[string]any{
				"*":        map[string]any{"create": true, "write": true, "read": true, "delete": true, "notify": true, "listen": true},
				"secret/*": map[string]any{"create": false, "write": false, "read": false, "delete": false, "notify": false},
				"broken/*": map[string]any{"read": "user.data.x.y"},
			},
			"event":    map[string]any{"*": map[string]any{"publish": true, "subscribe": true, "listen": true}, "secret/*": map[string]any{"publish": false}},
			"rpc":      map[string]any{"*": map[string]any{"provide": true, "request": true}, "secret/*": map[string]any{"request": false}},
			"presence": map[string]any{"*": map[string]any{"allow": true}, "secret": map[string]any{"allow": false}},
		}
	})
	provider := login(t, d.running, "bob")
	provider.say(protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{"answers", "nothing", "fails"}, CorrelationID: "1", Has: protocol.HasCorrelationID})
	provider.hear(protocol.TopicRPC, protocol.RPCProvide)
	go provider.serveRPC()

	for _, c := range []struct{ command, want, text string }{
		{`{"topic":"event","action":"emit","eventName":"news","data":{"a":1}}`, `{"success":true}`, ""},
		{`{"topic":"event","action":"emit","eventName":"news"}`, `{"success":true}`, ""},
		{`{"topic":"event","action":"emit","eventName":"secret/x","data":1}`, `{"success":false,"errorTopic":"event","errorEvent":"MESSAGE_DENIED","errorCode":104,"errorAction":"emit"}`, "message denied"},
		{`{"topic":"rpc","action":"make","rpcName":"answers","data":[1,"ä"]}`, `{"success":true,"data":[1,"ä"]}`, ""},
		{`{"topic":"rpc","action":"make","rpcName":"nothing"}`, `{"success":true}`, ""},
		{`{"topic":"rpc","action":"make","rpcName":"fails","data":1}`, `{"success":false,"errorTopic":"rpc","error":"no"}`, ""},
		{`{"topic":"rpc","action":"make","rpcName":"nobody"}`, `{"success":false,"errorTopic":"rpc","errorEvent":"NO_RPC_PROVIDER","errorCode":100,"errorParams":"nobody"}`, "no provider"},
		{`{"topic":"rpc","action":"make","rpcName":"secret/x"}`, `{"success":false,"errorTopic":"rpc","errorEvent":"MESSAGE_DENIED","errorCode":107,"action":2}`, "message denied.*REQUEST"},
		{`{"topic":"record","action":"read","recordName":"r"}`, `{"success":false,"errorTopic":"record","errorEvent":"RECORD_NOT_FOUND","errorCode":107,"errorParams":"r"}`, "no such record"},
		{`{"topic":"record","action":"head","recordName":"r"}`, `{"success":true,"version":-1}`, ""},
		{`{"topic":"record","action":"write","recordName":"r","data":{"a":{"b":1}}}`, `{"success":true}`, ""},
		{`{"topic":"record","action":"head","recordName":"r"}`, `{"success":true,"version":1}`, ""},
		{`{"topic":"record","action":"write","recordName":"r","path":"a.b","data":"x","version":2}`, `{"success":true}`, ""},
		{`{"topic":"record","action":"read","recordName":"r"}`, `{"success":true,"version":2,"data":{"a":{"b":"x"}}}`, ""},
		{`{"topic":"record","action":"write","recordName":"r","data":{},"version":2}`, `{"success":false,"errorTopic":"record","errorEvent":"VERSION_EXISTS","errorCode":102,"currentVersion":2,"currentData":{"a":{"b":"x"}}}`, "record update failed"},
		{`{"topic":"record","action":"write","recordName":"r","data":{},"version":9}`, `{"success":false,"errorTopic":"record","errorEvent":"INVALID_VERSION","errorCode":108,"currentVersion":2}`, "is not valid for record"},
		{`{"topic":"record","action":"write","recordName":"r","data":[1],"path":"","version":0}`, `{"success":true}`, ""},
		{`{"topic":"record","action":"write","recordName":"r","path":"a[","data":1}`, `{"success":false,"errorTopic":"record","errorEvent":"INVALID_MESSAGE_DATA","errorCode":116,"errorParams":"r"}`, ""},
		{`{"topic":"record","action":"read","recordName":"r"}`, `{"success":true,"version":3,"data":[1]}`, ""},
		{`{"topic":"record","action":"notify","recordNames":["r","other"]}`, `{"success":true}`, ""},
		{`{"topic":"record","action":"notify","recordNames":[]}`, `{"success":true}`, ""},
		{`{"topic":"record","action":"notify","recordNames":["r","secret/x"]}`, `{"success":false,"errorTopic":"record","errorEvent":"MESSAGE_DENIED","errorCode":115,"action":2}`, "message denied.*NOTIFY"},
		{`{"topic":"record","action":"delete","recordName":"r"}`, `{"success":true}`, ""},
		{`{"topic":"record","action":"delete","recordName":"r"}`, `{"success":true}`, ""},
		{`{"topic":"record","action":"read","recordName":"secret/x"}`, `{"success":false,"errorTopic":"record","errorEvent":"MESSAGE_DENIED","errorCode":115,"action":3}`, "message denied.*READ"},
		{`{"topic":"record","action":"head","recordName":"secret/x"}`, `{"success":false,"errorTopic":"record","errorEvent":"MESSAGE_DENIED","errorCode":115,"action":5}`, "message denied.*HEAD"},
		{`{"topic":"record","action":"delete","recordName":"secret/x"}`, `{"success":false,"errorTopic":"record","errorEvent":"MESSAGE_DENIED","errorCode":115,"action":9}`, "message denied.*DELETE"},
		{`{"topic":"record","action":"write","recordName":"secret/x","data":{}}`, `{"success":false,"errorTopic":"record","errorEvent":"MESSAGE_DENIED","errorCode":115,"action":16}`, "message denied.*create"},
		{`{"topic":"record","action":"write","recordName":"secret/x","path":"a","data":1}`, `{"success":false,"errorTopic":"record","errorEvent":"MESSAGE_DENIED","errorCode":115,"action":17}`, "message denied.*patch"},
		{`{"topic":"record","action":"write","recordName":"hadal/x","data":{}}`, `{"success":false,"errorTopic":"record","errorEvent":"MESSAGE_DENIED","errorCode":115,"action":16}`, "message denied"},
		{`{"topic":"record","action":"read","recordName":"broken/x"}`, `{"success":false,"errorTopic":"record","errorEvent":"MESSAGE_PERMISSION_ERROR","errorCode":114,"errorParams":"broken/x"}`, "rule"},
		{`{"topic":"list","action":"read","listName":"l"}`, `{"success":false,"errorTopic":"record","errorEvent":"RECORD_NOT_FOUND","errorCode":107,"errorParams":"l"}`, ""},
		{`{"topic":"list","action":"write","listName":"l","data":["a","b"]}`, `{"success":true}`, ""},
		{`{"topic":"list","action":"write","listName":"l","data":[],"version":1}`, `{"success":false,"errorTopic":"record","errorEvent":"VERSION_EXISTS","errorCode":102,"currentVersion":1,"currentData":["a","b"]}`, "record update failed"},
		{`{"topic":"list","action":"read","listName":"l"}`, `{"success":true,"version":1,"data":["a","b"]}`, ""},
		{`{"topic":"list","action":"delete","listName":"l"}`, `{"success":true}`, ""},
		{`{"topic":"presence","action":"query"}`, `{"success":true,"users":["bob"]}`, ""},
		{`{"topic":"presence","action":"query","names":["bob","ann","x"]}`, `{"success":true,"users":{"bob":true,"ann":false,"x":false}}`, ""},
		{`{"topic":"presence","action":"query","names":[]}`, `{"success":true,"users":{}}`, ""},
		{`{"topic":"presence","action":"query","names":["bob","secret"]}`, `{"success":false,"errorTopic":"presence","errorEvent":"MESSAGE_DENIED","errorCode":102,"action":4}`, "message denied.*QUERY"},
	} {
		got := d.batch(t, c.command)
		one, want := got.Body[0], object(t, c.want)
		text := fmt.Sprint(one["error"])
		if _, said := want["error"]; !said {
			delete(one, "error")
		}
		if diff := cmp.Diff(want, one); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.command, diff)
		}
		if !regexp.MustCompile("(?i)" + c.text).MatchString(text) {
			t.Errorf("%s: the error is %q, want one that matches %q", c.command, text, c.text)
		}
		if want := map[bool]string{true: "SUCCESS", false: "FAILURE"}[one["success"] == true]; got.Result != want {
			t.Errorf("%s: the result is %s, want %s", c.command, got.Result, want)
		}
	}
	// An asker is not among those it is told of, however it asks.
	if got := d.batchAs(t, "bob", `{"topic":"presence","action":"query"}`); fmt.Sprint(got.Body[0]["users"]) != "[]" {
		t.Errorf("bob is told of %v", got.Body[0]["users"])
	}
	// The commands of nobody's leave nothing behind.
	if st := d.rpc.Stats(); st.Running != 0 {
		t.Errorf("%d calls run", st.Running)
	}
	if st := d.presence.Stats(); st.Users != 1 {
		t.Errorf("%d users are online, want the provider", st.Users)
	}
}

// serveRPC answers calls until its connection ends.
func (p *peer) serveRPC() {
	for {
		m, err := p.read()
		if err != nil {
			return
		}
		answer := protocol.Message{Topic: protocol.TopicRPC, Name: m.Name, CorrelationID: m.CorrelationID, Has: protocol.HasName | protocol.HasCorrelationID}
		if m.Topic != protocol.TopicRPC || m.Action != protocol.RPCRequest {
			continue
		}
		accept := answer
		accept.Action = protocol.RPCAccept
		if p.ws.WriteMessage(2, protocol.Append(nil, &accept)) != nil {
			return
		}
		switch m.Name {
		case "answers":
			answer.Action, answer.Data, answer.Has = protocol.RPCResponse, m.Data, answer.Has|protocol.HasData
		case "nothing":
			answer.Action = protocol.RPCResponse
		case "fails":
			answer.Action, answer.Data, answer.Has = protocol.RPCRequestError, `"no"`, answer.Has|protocol.HasData
		default:
			continue
		}
		if p.ws.WriteMessage(2, protocol.Append(nil, &answer)) != nil {
			return
		}
	}
}

func TestACallOfTheAPIThatIsNotAnsweredTimesOut(t *testing.T) {
	for event, timeouts := range map[string][2]time.Duration{
		"RESPONSE_TIMEOUT": {time.Minute, 50 * time.Millisecond}, "ACCEPT_TIMEOUT": {50 * time.Millisecond, time.Minute},
	} {
		d := describe(t, func(c *Config) { c.RPC.AckTimeout, c.RPC.ResponseTimeout = timeouts[0], timeouts[1] })
		provider := login(t, d.running, "bob")
		provider.say(protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{"silent"}, CorrelationID: "1", Has: protocol.HasCorrelationID})
		provider.hear(protocol.TopicRPC, protocol.RPCProvide)
		got := d.batch(t, `{"topic":"rpc","action":"make","rpcName":"silent","data":1}`).Body[0]
		if got["errorTopic"] != "rpc" || got["errorEvent"] != event || got["errorParams"] != "silent" {
			t.Errorf("is answered %v, want %s", got, event)
		}
		if want := strings.ReplaceAll(strings.ToLower(event), "_", " "); !strings.Contains(strings.ToLower(fmt.Sprint(got["error"])), want) {
			t.Errorf("the error is %v, want one that says %q", got["error"], want)
		}
	}
}

// Commands run in order, whatever they are about, and one that fails stops none.
func TestABatchRunsInOrder(t *testing.T) {
	d := describe(t, nil)
	listener := login(t, d.running, "bob")
	listener.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"e"}, CorrelationID: "1", Has: protocol.HasCorrelationID})
	listener.hear(protocol.TopicEvent, protocol.EventSubscribe)
	var commands []string
	for i := range 50 {
		commands = append(commands,
			fmt.Sprintf(`{"topic":"record","action":"write","recordName":"r%d","data":{"n":%d},"version":%d}`, i%3, i, i/3+1),
			fmt.Sprintf(`{"topic":"record","action":"read","recordName":"r%d"}`, i%3),
			fmt.Sprintf(`{"topic":"event","action":"emit","eventName":"e","data":%d}`, i),
			`{"topic":"record","action":"read","recordName":"none"}`)
	}
	got := d.batch(t, commands...)
	if got.Result != "PARTIAL_SUCCESS" {
		t.Errorf("the result is %s", got.Result)
	}
	for i := range 50 {
		if n := got.Body[4*i+1]["data"].(map[string]any)["n"]; n != float64(i) {
			t.Fatalf("read %d sees %v", i, n)
		}
		if m := listener.hear(protocol.TopicEvent, protocol.EventEmit); m.Data != fmt.Sprint(i) {
			t.Fatalf("event %d has %s", i, m.Data)
		}
	}
}

// What is wrong with a request as a whole has a status of its own, as text and as problem
// details.
func TestRequestsOfTheAPIThatMakeNoSenseAreRefused(t *testing.T) {
	d := describe(t, func(c *Config) { c.ConnectionEndpoints[3].API.MaxCommands = 3 })
	const login, read = `"authData":{"username":"ann","password":"x"}`, `{"topic":"record","action":"read","recordName":"r"}`
	batch := func(body string) string { return `{` + login + `,"body":[` + body + `]}` }
	for name, c := range map[string]struct {
		method, path, body, kind string
		status                   int
		code, says               string
	}{
		"another content type":    {kind: "text/plain", body: batch(read), status: 415, code: "INVALID_MESSAGE"},
		"a charset":               {kind: "application/json; charset=utf-8", body: batch(read), status: 200},
		"no JSON":                 {body: `{`, status: 400, code: "MESSAGE_PARSE_ERROR"},
		"a scalar":                {body: `7`, status: 400, code: "MESSAGE_PARSE_ERROR"},
		"null":                    {body: `null`, status: 400, code: "MESSAGE_PARSE_ERROR"},
		"an array":                {body: `[1]`, status: 400, code: "INVALID_MESSAGE"},
		"no UTF-8":                {body: "{\"body\":\"\xff\"}", status: 400, code: "MESSAGE_PARSE_ERROR"},
		"nothing":                 {body: ``, status: 400, code: "INVALID_MESSAGE", says: "body"},
		"no body":                 {body: `{` + login + `}`, status: 400, code: "INVALID_MESSAGE", says: "body"},
		"a body that is no list":  {body: `{` + login + `,"body":{}}`, status: 400, code: "INVALID_MESSAGE", says: "body"},
		"an empty body":           {body: batch(``), status: 400, code: "INVALID_MESSAGE", says: "body"},
		"too many commands":       {body: batch(strings.Repeat(read+",", 3) + read), status: 413, code: "MAXIMUM_MESSAGE_SIZE_EXCEEDED"},
		"authData that is null":   {body: `{"authData":null,"body":[` + read + `]}`, status: 400, code: "INVALID_MESSAGE_DATA", says: "authData"},
		"an empty token":          {body: `{"token":"","body":[` + read + `]}`, status: 400, code: "INVALID_MESSAGE_DATA", says: "token"},
		"a token of another type": {body: `{"token":7,"body":[` + read + `]}`, status: 400, code: "INVALID_MESSAGE_DATA", says: "token"},
		"a wrong password":        {body: `{"authData":{"username":"ann","password":"y"},"body":[1]}`, status: 401, code: "AUTH_UNSUCCESSFUL"},
		"no credentials":          {body: `{"body":[` + read + `]}`, status: 401, code: "AUTH_UNSUCCESSFUL"},
		"a wrong token":           {body: `{"token":"x","body":[` + read + `]}`, status: 401, code: "AUTH_UNSUCCESSFUL"},
		"authData before token":   {body: `{"token":"x",` + login + `,"body":[` + read + `]}`, status: 200},
		"a command too few":       {body: batch(read + `,{"topic":"record","action":"read"}`), status: 400, code: "MESSAGE_PARSE_ERROR", says: "Failed to parse JIF object at index 1: recordName"},
		"PUT":                     {method: "PUT", status: 405, code: "METHOD_NOT_ALLOWED"},
		"DELETE":                  {method: "DELETE", status: 405, code: "METHOD_NOT_ALLOWED"},
		"GET without a query":     {method: "GET", status: 400, code: "INVALID_MESSAGE"},
		"GET that writes":         {method: "GET", path: "/api?topic=record&action=delete&recordName=r", status: 400, code: "INVALID_MESSAGE", says: "POST"},
		"GET without a name":      {method: "GET", path: "/api?topic=record&action=read", status: 400, code: "MESSAGE_PARSE_ERROR"},
		"GET without a login":     {method: "GET", path: "/api?topic=record&action=read&recordName=r", status: 401, code: "AUTH_UNSUCCESSFUL"},
		"below the path":          {path: "/api/v1/x?y=1", body: batch(read), status: 200},
		"beside the path":         {path: "/apixyz", body: batch(read), status: 404},
		"a login that is wrong":   {path: "/api/auth", body: `{"username":"ann","password":"y"}`, status: 401, code: "AUTH_UNSUCCESSFUL"},
		"a login that is none":    {path: "/api/auth", body: `7`, status: 400, code: "MESSAGE_PARSE_ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			method, path := c.method, c.path
			if method == "" {
				method = http.MethodPost
			}
			if path == "" {
				path = "/api"
			}
			header := map[string]string{}
			if c.kind != "" {
				header["Content-Type"] = c.kind
			}
			resp, text := d.send(t, method, path, header, c.body)
			if resp.StatusCode != c.status {
				t.Fatalf("is answered %d %s, want %d", resp.StatusCode, text, c.status)
			}
			if c.status == 200 || c.code == "" {
				return
			}
			if kind := resp.Header.Get("Content-Type"); kind != "text/plain; charset=utf-8" || !strings.HasPrefix(text, c.code+": ") || !strings.Contains(text, c.says) {
				t.Errorf("is answered %s %q, want %s and %q", kind, text, c.code, c.says)
			}
			header["Accept"] = "application/json, application/problem+json"
			resp, text = d.send(t, method, path, header, c.body)
			problem := struct{ Code, Detail string }{}
			if err := json.Unmarshal([]byte(text), &problem); err != nil || problem.Code != c.code || !strings.Contains(problem.Detail, c.says) {
				t.Errorf("the problem is %s (%v), want %s and %q", text, err, c.code, c.says)
			}
			if kind := resp.Header.Get("Content-Type"); kind != "application/problem+json" || resp.StatusCode != c.status {
				t.Errorf("the problem has status %d and type %s", resp.StatusCode, kind)
			}
		})
	}
}
