package perms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"hadal/auth"
	"hadal/protocol"
)

const explained = `
record:
  "*": {create: true, read: true, write: false}
  users/$id:
    read: true
    create: "$id === user.id"
    write: "user.id === $id && (!oldData || data.version > oldData.version)"
    delete: "user.data.role === 'admin'"
  users/*: {write: true, listen: true}
  users/$a: {write: true}
  shop/*: {write: "_('item/' + data.item).stock > 0", read: "_('a/' + _('a/' + _('a/' + _('a/x').n).n).n).n === 1", delete: "_('broken')"}
  odd/"*": {notify: true}
  when: {read: "now < 1700000000001 && action === 3 && user.isAuthenticated"}
event:
  "*": {publish: "typeof data === 'number' && data > 10", subscribe: true}
rpc:
  "*": {request: "data.token === user.data.token", provide: false}
presence:
  "*": {allow: "name !== 'undefined'"}
`

func TestExplanations(t *testing.T) {
	r := load(t, explained)
	records := shelf{"users/bob": `{"version":5}`, "item/1": `{"stock":2,"apiKey":"hush"}`, "a/x": `{"n":"y"}`, "a/y": `{"n":"z"}`}
	for _, c := range []struct {
		query string
		want  string   // verdict and reason
		says  []string // lines of the text, or parts of them, in order
	}{
		{`{"user":"ada","action":"record.update","name":"users/ada","data":{"version":2},"oldData":{"version":3}}`,
			`deny: record "users/$id": rule write denies, because !oldData || data.version > oldData.version is false`,
			[]string{"DENY (MESSAGE_DENIED): ", "user    ada\n", "action  RECORD.UPDATE (18)\n", `name    users/ada` + "\n",
				"record write: deny\n", "rule  user.id === $id &&", `  * "users/$id": the longest that matches and has the rule`,
				`    "users/$a": shorter: 8 against 9 characters`, `    "users/*": shorter: 7`, `    "*": shorter`,
				"variables\n", `$id = "ada"`, `data = {"version":2}`, `oldData = {"version":3}`, `user = {"id":"ada","isAuthenticated":true,"data":null}`,
				"evaluation\n", "user.id === $id = true", "*   !oldData || data.version > oldData.version = false"}},
		{`{"user":"ada","action":"record.write","name":"users/ada","path":"version","data":4,"oldData":{"version":3,"x":1}}`, "allow: ",
			[]string{"RECORD.PATCH (19)", `data = {"version":4,"x":1}`}},
		{`{"user":"bob","action":"record.UPDATE","name":"users/bob","data":{"version":5}}`, "deny: ", []string{`oldData = {"version":5}`}},
		{`{"user":"ada","action":"record.update","name":"users/ada","data":{}}`, "allow: ", []string{"(does not exist)", "oldData = null"}},
		{`{"user":"ada","action":"record.createAndUpdate","name":"users/bob","data":{},"oldData":null}`,
			`deny: record "users/$id": rule create denies, because $id === user.id is false`, []string{"record create: deny", "record write: deny"}},
		{`{"user":"ada","action":"record.create-and-patch","name":"y","data":{}}`, `deny: record "*": rule write is always false`, []string{"record create: allow", "rule  true", "record write: deny"}},
		{`{"user":"ada","action":"record.subscribeCreateAndRead","name":"users/bob"}`, `allow: record "users/$id": rule read is always true`, []string{"record create: not asked: the record exists"}},
		{`{"user":"ada","action":"record.subscribeCreateAndRead","name":"users/eve"}`, `deny: record "users/$id": rule create`, []string{"record read: allow", "record create: deny"}},
		{`{"user":"ada","action":"record.delete","name":"users/bob"}`,
			`error: record "users/$id": rule delete fails, which denies: line 1, column 1: user.data.role: cannot read a member of null`,
			[]string{"ERROR (MESSAGE_PERMISSION_ERROR)", "*   user.data.role fails: "}},
		{`{"user":"ada","userData":{"role":"admin","password":"hush"},"action":"record.delete","name":"users/bob"}`, `allow: `, []string{`"password":"***"`}},
		{`{"user":"ada","action":"record.notify","name":"users/bob"}`, `deny: no path that matches the name has a rule notify`,
			[]string{`"users/$id": has no such rule`, `"*": has no such rule`}},
		{`{"user":"ada","action":"record.notify","name":"odd/1"}`, `deny: no path`, []string{`"odd/\"*\"": does not match: it has quotes in it`}},
		{`{"user":"ada","action":"record.listen","name":"Users/x"}`, `deny: no path`, []string{`"*": has no such rule`, `"users/*": does not match: upper and lower case differ`}},
		{`{"user":"ada","action":"record.write","name":"shop/1","data":{"item":"1"}}`, `allow: `, []string{`run 1: "item/1" = {"stock":2,"apiKey":"***"}`, `.stock = 2`}},
		{`{"user":"ada","action":"record.write","name":"shop/1","data":{"item":"1"},"references":{"item/1":{"stock":0}}}`, `deny: `, []string{`{"stock":0}`}},
		{`{"user":"ada","action":"record.write","name":"shop/1","data":{"item":"1"},"references":{"item/1":null}}`, `error: `, []string{`"item/1" = does not exist`}},
		{`{"user":"ada","action":"record.read","name":"shop/1"}`, `error: record "shop/*": rule read fails, which denies: the records that the rule refers to lead to too many others`,
			[]string{`run 1: "a/x"`, `run 2: "a/y"`, `run 3: "a/z" = does not exist`}},
		{`{"user":"ada","action":"record.delete","name":"shop/1"}`, `error: record "shop/*": rule delete fails, which denies: a record that the rule refers to could not be read: "broken": block is damaged`, nil},
		{`{"user":"ada","action":"record.read","name":"when"}`, `allow: `, []string{"now = 1700000000000"}},
		{`{"user":"ada","action":"record.read","name":"when","now":1700000000001}`, `deny: record "when": rule read denies, because now < 1700000000001 is false`, []string{"(not reached)"}},
		{`{"action":"record.read","name":"when"}`, `deny: `, []string{"user    open (not authenticated)"}},
		{`{"action":"record.unsubscribe","name":"when"}`, `allow: no rule guards this action`, nil},
		{`{"action":"event.subscribe","name":"hadal/auth/expiring"}`, `allow: the server tells a client by hadal/auth/expiring`, nil},
		{`{"action":"record.update","name":"hadal/x","data":{}}`, `deny: names under hadal/ are the server's own`, nil},
		{`{"action":"event.publish","name":"n","data":11}`, `allow: event "*": rule publish allows, because typeof data === 'number' && data > 10 is true`, []string{"EVENT.EMIT (2)"}},
		{`{"action":"event.emit","name":"n"}`, `deny: event "*": rule publish denies, because typeof data === 'number' is false`, []string{"data = undefined"}},
		{`{"action":"rpc.request","name":"n","data":{"token":"hush"},"userData":{"token":"hush"}}`, `allow: `, []string{`data = {"token":"***"}`, `data.token = "***"`}},
		{`{"action":"presence.query_all"}`, `deny: presence "*": rule allow denies, because name !== 'undefined' is false`, []string{"name    undefined"}},
		{`{"action":"presence.query","name":"bob"}`, `allow: `, nil},
	} {
		var q Query
		if err := json.Unmarshal([]byte(c.query), &q); err != nil {
			t.Fatalf("%s: %v", c.query, err)
		}
		x, err := r.Explain(t.Context(), q, records)
		if err != nil {
			t.Errorf("%s: %v", c.query, err)
			continue
		}
		if got := x.Verdict + ": " + x.Reason; !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.query, got, c.want)
		}
		text := x.Text()
		rest := text
		for _, want := range c.says {
			_, after, ok := strings.Cut(rest, want)
			if !ok {
				t.Errorf("%s: %q is not there, or not in order, in\n%s", c.query, want, text)
				break
			}
			rest = after
		}
		b, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text+string(b), "hush") {
			t.Errorf("%s: a secret is told:\n%s%s", c.query, text, b)
		}
		again, err := r.Explain(t.Context(), q, records)
		if err != nil || !reflect.DeepEqual(x, again) {
			t.Errorf("%s: explained differently the second time: %v", c.query, err)
		}
		q.ShowSecrets = true
		open, err := r.Explain(t.Context(), q, records)
		if err != nil || strings.Contains(c.query, "hush") && !strings.Contains(open.Text(), "hush") {
			t.Errorf("%s: secrets that may be told are not", c.query)
		}
	}
}

func TestExplanationsAgreeWithDoorAndJudge(t *testing.T) {
	r := load(t, explained)
	records := shelf{"item/1": `{"stock":2}`, "a/x": `{"n":"y"}`, "a/y": `{"n":"z"}`}
	l := NewLive(r, records, nil)
	asked := 0
	for _, user := range []*auth.User{{ID: "ada"}, {ID: auth.Anonymous}, {ID: "root", ServerData: `{"role":"admin"}`}} {
		for id, topic := range sectionTopics {
			for a := range protocol.Action(128) {
				d := demandOf(topic, a)
				if d.how == never || d.how == ownerOnly {
					continue
				}
				for _, name := range []string{"users/ada", "users/x/y", "shop/1", "other", "when", "hadal/x", "hadal/auth/expiring", "odd/1"} {
					for _, old := range []string{"", `{"version":1}`} {
						const data = `{"version":2,"item":"1"}`
						q := Query{User: user.ID, UserData: json.RawMessage(user.ServerData), Action: sectionNames[id] + "." + a.Name(topic), Name: name,
							Data: json.RawMessage(data), OldData: json.RawMessage("null")}
						if old != "" {
							q.OldData = json.RawMessage(old)
						}
						x, err := r.Explain(t.Context(), q, records)
						if err != nil {
							t.Fatalf("%+v: %v", q, err)
						}
						want := told(l.Door(user, topic, a, name, data))
						if topic == protocol.TopicRecord && d.how != free && want != "deny" && want != "error" {
							refused, wanted := l.Judge(user, a, name, data, old, old != "", records.known)
							if len(wanted) > 0 {
								t.Fatalf("%+v: wants %v", q, wanted)
							}
							want = map[protocol.Action]string{0: "allow", protocol.RecordMessageDenied: "deny", protocol.RecordMessagePermissionError: "error"}[refused]
						}
						// Door and Judge see another time.
						if asked++; x.Verdict != want && name != "when" {
							t.Errorf("%s by %s of %q over %q: explained %s (%s), judged %s", q.Action, user.ID, name, old, x.Verdict, x.Reason, want)
						}
					}
				}
			}
		}
	}
	if asked < 1000 {
		t.Errorf("only %d questions", asked)
	}
}

func TestQuestionsThatMakeNoSense(t *testing.T) {
	r := load(t, explained)
	for _, c := range []struct{ query, want string }{
		{`{}`, `the action "": write it as record.update`},
		{`{"action":"record.drop","name":"x"}`, `the action "record.drop": record has create, read, write, delete, listen, notify`},
		{`{"action":"record.readResponse","name":"x"}`, `record has `},
		{`{"action":"event.publish"}`, "a name is missing: which event is it?"},
		{`{"action":"record.update","name":"users/x","user":"x","oldData":{}}`, "the rule looks at data"},
		{`{"action":"record.patch","name":"users/x","path":"a"}`, `data is missing: what goes to "a"?`},
		{`{"action":"record.patch","name":"users/x","path":"a[x]","data":1}`, `the path "a[x]"`},
		{`{"action":"record.patch","name":"users/x","path":"a","data":1,"oldData":[1]}`, `does not fit`},
		{`{"action":"record.read","name":"users/x","path":"a"}`, "a path is for what writes"},
	} {
		var q Query
		if err := json.Unmarshal([]byte(c.query), &q); err != nil {
			t.Fatal(err)
		}
		x, err := r.Explain(t.Context(), q, nil)
		if !errors.Is(err, ErrQuery) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: got %v, %v, want %q", c.query, x, err, c.want)
		}
	}
	for _, q := range []Query{
		{Action: "record.read", Name: "x", OldData: json.RawMessage("{")},
		{Action: "record.read", Name: "x", References: map[string]json.RawMessage{"a": json.RawMessage("")}},
	} {
		if _, err := r.Explain(t.Context(), q, nil); !errors.Is(err, ErrQuery) || !strings.Contains(err.Error(), "is not JSON") {
			t.Errorf("%+v: got %v", q, err)
		}
	}
	if _, err := r.Explain(t.Context(), Query{Action: "record.read", Name: "broken"}, shelf{}); err == nil || errors.Is(err, ErrQuery) {
		t.Errorf("a record that cannot be read: got %v", err)
	}
	open, err := (&Rules{open: true}).Explain(context.Background(), Query{Action: "record.read", Name: "x"}, nil)
	if err != nil || open.Verdict != "allow" || !strings.Contains(open.Text(), `permission.type is "none"`) {
		t.Errorf("without rules: %+v, %v", open, err)
	}
	live, err := NewLive(r, shelf{}, nil).Explain(t.Context(), Query{Action: "record.read", Name: "x"})
	if err != nil || live.Verdict != "allow" {
		t.Errorf("live: %+v, %v", live, err)
	}
}

func TestSecretKeys(t *testing.T) {
	for key, want := range map[string]bool{
		"password": true, "userPassword": true, "PASSWORD2": true, "access_token": true, "accessToken": true, "secretSauce": true,
		"api-key": true, "apiKey": true, "APIKEY": true, "key": true, "Authorization": true, "auth": true, "pin": true,
		"monkey": false, "keyboard": false, "author": false, "pinned": false, "spin": false, "passenger": false, "name": false, "": false,
	} {
		if got := secretKey(key); got != want {
			t.Errorf("%q: got %v", key, got)
		}
	}
}
