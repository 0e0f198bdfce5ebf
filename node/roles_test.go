package node

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"hadal/auth"
	"hadal/perms"
	"hadal/protocol"
)

const rolesFile = "../conf/roles.example.yml"

// roles are those of the shipped rules, in the order in which pages show them.
var roles = []string{"guest", "standard_user", "moderator", "admin"}

func rolesConfig() perms.Config {
	c := perms.DefaultConfig()
	c.Type, c.Options.Path = "config", rolesFile
	return c
}

// rolesMatrix is what the shipped rules are said to allow.
func rolesMatrix(t *testing.T, users ...perms.MatrixUser) (*perms.Rules, *perms.Matrix) {
	t.Helper()
	rules, err := perms.New(rolesConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range roles {
		users = append(users, perms.RoleUser(role))
	}
	m, err := rules.Matrix(users)
	if err != nil {
		t.Fatal(err)
	}
	return rules, m
}

func TestThePageOfRolesShowsTheMatrix(t *testing.T) {
	rules, m := rolesMatrix(t)
	found := slices.Sorted(slices.Values(rules.Roles()))
	if want := slices.Sorted(slices.Values(roles)); !slices.Equal(found, want) {
		t.Errorf("the rules know the roles %v, want %v", found, want)
	}
	const path = "../docs/roles.md"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const from, to = "<!-- matrix -->\n", "<!-- end -->\n"
	before, rest, ok := strings.Cut(string(page), from)
	_, after, ended := strings.Cut(rest, to)
	if !ok || !ended {
		t.Fatalf("%s has no place for the matrix, between %q and %q", path, from, to)
	}
	want := before + from + "\n" + m.Markdown() + "\n" + to + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(page) {
		t.Errorf("%s shows another matrix: run go test ./node -run Roles -update", path)
	}
}

// walker is a client of one role on a bare socket, that tries everything.
type walker struct {
	*peer
	name  string
	tried int
}

// act is one message, and how its answer looks where it is allowed.
type act struct {
	m       protocol.Message
	allowed func(m protocol.Message) bool
	// pings says that there is no such answer: what is answered first, a denial or a ping
	// behind it, decides.
	pings bool
}

// try sends the message and says whether it was allowed.
func (w *walker) try(a act) bool {
	w.t.Helper()
	w.tried++
	m := a.m
	m.CorrelationID = fmt.Sprintf("%s-%d", w.name, w.tried)
	m.Has |= protocol.HasCorrelationID
	w.say(m)
	if a.pings {
		w.say(protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionPing})
	}
	asked := append(slices.Clone(m.Names), m.Name)
	denied := false
	for {
		got, err := w.read()
		if err != nil {
			w.t.Fatalf("%s waits for an answer to %+v: %v", w.name, m, err)
		}
		ours := got.CorrelationID == m.CorrelationID || got.CorrelationID == "" && slices.Contains(asked, got.Name)
		switch {
		case got.Topic == m.Topic && (got.Action == protocol.Denied(m.Topic) || got.Action == protocol.PermissionError(m.Topic)) && ours:
			if denied = true; !a.pings {
				return false
			}
		case a.pings:
			if got.Topic == protocol.TopicConnection && got.Action == protocol.ConnectionPong {
				return !denied
			}
		case got.Topic == m.Topic && ours && !got.IsError && a.allowed(got), got.Topic == m.Topic && ours && got.Action == protocol.RPCNoRPCProvider:
			return true
		}
	}
}

// heard says whether an event has reached this client, after everything that was sent before
// is on its way.
func (w *walker) heard(name string) bool {
	w.t.Helper()
	w.say(protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionPing})
	heard := false
	for {
		got, err := w.read()
		switch {
		case err != nil:
			w.t.Fatalf("%s waits for a pong: %v", w.name, err)
		case got.Topic == protocol.TopicEvent && got.Action == protocol.EventEmit && got.Name == name:
			heard = true
		case got.Topic == protocol.TopicConnection && got.Action == protocol.ConnectionPong:
			return heard
		}
	}
}

func isAction(a protocol.Action) func(protocol.Message) bool {
	return func(m protocol.Message) bool { return m.Action == a }
}

// recordActs are the messages that need the rules of those types, on a record.
func recordActs(name, doc string) map[string][]act {
	one := func(a protocol.Action, path, data string, answer protocol.Action) act {
		m := protocol.Message{Topic: protocol.TopicRecord, Action: a, Name: name, Version: -1, IsWriteAck: true, Has: protocol.HasVersion}
		if path != "" {
			m.Path, m.Has = path, m.Has|protocol.HasPath
		}
		if data != "" {
			m.Data, m.Has = data, m.Has|protocol.HasData
		}
		return act{m: m, allowed: isAction(answer)}
	}
	list := func(a, answer protocol.Action) act {
		return act{m: protocol.Message{Topic: protocol.TopicRecord, Action: a, Names: []string{name}}, allowed: isAction(answer)}
	}
	return map[string][]act{
		"read": {
			one(protocol.RecordRead, "", "", protocol.RecordReadResponse),
			one(protocol.RecordHead, "", "", protocol.RecordHeadResponse),
			list(protocol.RecordSubscribe, protocol.RecordSubscribe),
			list(protocol.RecordSubscribeAndHead, protocol.RecordHeadResponseBulk),
			list(protocol.RecordSubscribeAndRead, protocol.RecordReadResponse),
		},
		"write": {
			one(protocol.RecordUpdate, "", doc, protocol.RecordWriteAcknowledgement),
			one(protocol.RecordUpdate, "text", `"by the back door"`, protocol.RecordWriteAcknowledgement), // a patch in truth
			one(protocol.RecordPatch, "text", `"x"`, protocol.RecordWriteAcknowledgement),
			one(protocol.RecordPatchMulti, "", `[{"path":"text","data":"y"}]`, protocol.RecordWriteAcknowledgement),
		},
		"delete": {
			one(protocol.RecordErase, "text", "", protocol.RecordWriteAcknowledgement),
			one(protocol.RecordDelete, "", "", protocol.RecordDeleteSuccess),
		},
		"listen":      {one(protocol.RecordListen, "", "", protocol.RecordListen)},
		"notify":      {list(protocol.RecordNotify, protocol.RecordNotify)},
		"create read": {list(protocol.RecordSubscribeCreateAndRead, protocol.RecordReadResponse)},
		"create write": {
			one(protocol.RecordCreateAndUpdate, "", doc, protocol.RecordWriteAcknowledgement),
			one(protocol.RecordCreateAndPatch, "author", author(doc), protocol.RecordWriteAcknowledgement),
		},
	}
}

// otherActs are those of the other topics.
func otherActs(name string) map[string][]act {
	list := func(t protocol.Topic, a protocol.Action) act {
		return act{m: protocol.Message{Topic: t, Action: a, Names: []string{name}}, allowed: isAction(a)}
	}
	single := func(t protocol.Topic, a protocol.Action, answer protocol.Action) act {
		return act{m: protocol.Message{Topic: t, Action: a, Name: name}, allowed: isAction(answer)}
	}
	emit := single(protocol.TopicEvent, protocol.EventEmit, 0)
	emit.m.Data, emit.m.Has, emit.pings = `{"text":"x"}`, protocol.HasData, true
	request := single(protocol.TopicRPC, protocol.RPCRequest, protocol.RPCNoRPCProvider)
	everybody := act{m: protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceSubscribeAll}, allowed: isAction(protocol.PresenceSubscribeAll)}
	return map[string][]act{
		"event publish":   {emit},
		"event subscribe": {list(protocol.TopicEvent, protocol.EventSubscribe)},
		"event listen":    {single(protocol.TopicEvent, protocol.EventListen, protocol.EventListen)},
		"rpc request":     {request},
		"rpc provide":     {list(protocol.TopicRPC, protocol.RPCProvide)},
		"presence allow": {
			list(protocol.TopicPresence, protocol.PresenceSubscribe),
			{m: protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceQuery, Names: []string{name}}, allowed: isAction(protocol.PresenceQueryResponse)},
			{m: protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceQueryAll}, allowed: isAction(protocol.PresenceQueryAllResponse)},
			everybody,
		},
	}
}

func author(doc string) string {
	var d struct {
		Author json.RawMessage `json:"author"`
	}
	if err := json.Unmarshal([]byte(doc), &d); err != nil {
		return "null"
	}
	return string(d.Author)
}

// expected is what a cell allows in each of two situations: what is asked for is the
// client's own, or somebody else's.
func expected(cell string, own bool) bool {
	return cell == perms.CellAllow || cell == perms.CellSometimes && own
}

var wildcard = regexp.MustCompile(`\*|\$\w+`)

// Every cell of the matrix of the shipped rules is tried by a client on a bare socket, with
// every action that the rule stands for, on what is its own and on what is not.
func TestEveryCellOfTheRolesMatrixIsWhatHappens(t *testing.T) {
	columns := []perms.MatrixUser{{Name: "nobody"}, {Name: "stranger", Data: json.RawMessage(`{"role":"intruder"}`)}}
	_, matrix := rolesMatrix(t, columns...)
	users := map[string]auth.Entry{"nobody": {Password: "x"}, "stranger": {Password: "x", ServerData: map[string]any{"role": "intruder"}}}
	for _, role := range roles {
		users[role] = auth.Entry{Password: "x", ServerData: map[string]any{"role": role}}
	}
	users["operator"] = users["admin"]
	n := run(t, func(c *Config) {
		c.Records.Store = "memory"
		c.Auth = []auth.Config{{Type: "file", Options: auth.Options{Users: users}}}
		c.Permission = rolesConfig()
	})
	r := &rolesTest{T: t, matrix: matrix, operator: &walker{peer: login(t, n, "operator"), name: "operator"}}
	for _, u := range matrix.Users {
		r.walkers = append(r.walkers, &walker{peer: login(t, n, u.Name), name: u.Name})
	}
	for _, row := range matrix.Rows {
		for i, w := range r.walkers {
			for _, own := range []bool{true, false} {
				r.walk(row, i, w, own)
			}
		}
	}
	t.Logf("%d messages were judged in %d cells: %d allowed, %d denied", r.allowed+r.denied, r.cells, r.allowed, r.denied)
	if want := len(matrix.Rows) * len(r.walkers); r.cells != want || r.allowed == 0 || r.denied == 0 {
		t.Errorf("walked %d cells, want %d", r.cells, want)
	}
}

type rolesTest struct {
	*testing.T
	matrix   *perms.Matrix
	operator *walker
	walkers  []*walker

	names, cells, allowed, denied int
}

// cell is what the matrix says of another action on the same path.
func (r *rolesTest) cell(row perms.MatrixRow, action string, column int) string {
	for _, other := range r.matrix.Rows {
		if other.Topic == row.Topic && other.Path == row.Path && other.Action == action {
			return other.Cells[column]
		}
	}
	r.Fatalf("the matrix has no %s %s %s", row.Topic, row.Path, action)
	return ""
}

// walk tries one cell.
func (r *rolesTest) walk(row perms.MatrixRow, column int, w *walker, own bool) {
	if own {
		r.cells++
	}
	r.names++
	name := wildcard.ReplaceAllString(row.Path, fmt.Sprint("of-another-", r.names))
	if own && strings.Contains(row.Path, "$userid") {
		name = wildcard.ReplaceAllString(row.Path, w.name)
	}
	if row.Topic != "record" {
		acts, want := otherActs(name), expected(row.Cells[column], own)
		publishes := row.Topic == "event" && row.Action == "publish"
		if publishes && !r.operator.try(acts["event subscribe"][0]) {
			r.Fatalf("the operator may not subscribe to %s", name)
		}
		for _, a := range acts[row.Topic+" "+row.Action] {
			r.check(row, w, a, own, want)
		}
		if publishes {
			if got := r.operator.heard(name); got != want {
				r.Errorf("event %s of %s is heard: %v, want %v", name, w.name, got, want)
			}
		}
		return
	}
	theirs, sent := `{"author":"another","text":"a"}`, fmt.Sprintf(`{"author":%q,"text":"b"}`, w.name)
	if own {
		theirs = sent
	}
	acts := recordActs(name, sent)
	if row.Action != "create" {
		for _, a := range acts[row.Action] {
			r.reset(name, theirs)
			r.check(row, w, a, own, expected(row.Cells[column], own))
		}
		return
	}
	// No message needs the rule create alone.
	for also, list := range map[string][]act{"read": acts["create read"], "write": acts["create write"]} {
		for _, a := range list {
			// Nothing is written to what does not exist: it is nobody else's.
			mine := own || !strings.Contains(row.Path, "$userid")
			r.reset(name, "")
			r.check(row, w, a, own, expected(row.Cells[column], mine) && expected(r.cell(row, also, column), mine))
		}
	}
}

// check tries one message.
func (r *rolesTest) check(row perms.MatrixRow, w *walker, a act, own, want bool) {
	r.Helper()
	got := w.try(a)
	if got {
		r.allowed++
	} else {
		r.denied++
	}
	if got != want {
		r.Errorf("%s %s, rule %s, own %v: %s of %s is allowed: %v, want %v", row.Topic, row.Path, row.Action, own,
			a.m.Action.Name(a.m.Topic), w.name, got, want)
	}
}

// reset has the operator make the record what it was, or remove it when doc is empty.
func (r *rolesTest) reset(name, doc string) {
	r.Helper()
	acts := recordActs(name, doc)
	for _, a := range []act{
		acts["create write"][1], // what exists can be deleted
		acts["delete"][1],
	} {
		if !r.operator.try(a) {
			r.Fatalf("the operator may not prepare %s", name)
		}
	}
	if doc != "" && !r.operator.try(acts["create write"][0]) {
		r.Fatalf("the operator may not write %s", name)
	}
}
