package perms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"hadal/auth"
	"hadal/protocol"
)

// shelf is a fixed set of records.
type shelf map[string]string

func (s shelf) Read(_ context.Context, name string) (string, bool, error) {
	if name == "broken" {
		return "", false, errors.New("block is damaged")
	}
	data, ok := s[name]
	return data, ok, nil
}

// known is the shelf as an owner that has fetched everything.
func (s shelf) known(name string) (string, bool, bool) {
	data, ok := s[name]
	return data, ok, true
}

func live(t testing.TB, record, event, rpc string, records Records) *Live {
	t.Helper()
	text := "record: {'*': {create: true}, " + record + "}\nevent: {'*': {listen: true}, " + event + "}\nrpc: {'*': {provide: true}, " + rpc + "}\n" + restPresence
	return NewLive(load(t, text), records, nil)
}

func TestRulesSeeTheMessage(t *testing.T) {
	ada := &auth.User{ID: "ada", ServerData: `{"role":"admin","level":3}`}
	l := live(t,
		`u/$id: {read: "user.id === $id", write: "data.value > oldData.value", create: "$id !== 'nobody' && action === 15", delete: "oldData.owner === user.id"},
		 a/$x/b/$y: {read: "$x + $y === 'onetwo'"}, dup/$x/$x: {read: "$x === 'last'"}`,
		`n: {publish: "typeof data === 'number' && data > 10"}, who: {publish: "user.data.role === 'admin' && user.isAuthenticated"}, named: {publish: "name === 'named' && action === 2"}, odd: {publish: "data.x.y"}`,
		`r/$x: {request: "data.to === $x"}`, nil)
	denied, failed := protocol.RecordMessageDenied, protocol.RecordMessagePermissionError
	for _, c := range []struct {
		user   *auth.User
		action protocol.Action
		name   string
		data   string
		old    string
		want   protocol.Action
	}{
		{ada, protocol.RecordRead, "u/ada", "", `{}`, 0},
		{ada, protocol.RecordRead, "u/bob", "", `{}`, denied},
		{ada, protocol.RecordRead, "a/one/b/two", "", `{}`, 0},
		{ada, protocol.RecordRead, "a/on/b/two", "", `{}`, denied},
		{ada, protocol.RecordRead, "dup/first/last", "", `{}`, 0},
		{ada, protocol.RecordUpdate, "u/x", `{"value":2}`, `{"value":1}`, 0},
		{ada, protocol.RecordPatch, "u/x", `{"value":1}`, `{"value":1}`, denied},
		{ada, protocol.RecordUpdate, "u/x", `{"value":2}`, "", failed}, // oldData is null
		{ada, protocol.RecordDelete, "u/x", "", `{"owner":"ada"}`, 0},
		{ada, protocol.RecordDelete, "u/x", "", `{}`, denied},
		{ada, protocol.RecordCreate, "u/x", "", "", 0},
		{ada, protocol.RecordCreate, "u/nobody", "", "", denied},
	} {
		got, wanted := l.Judge(c.user, c.action, c.name, c.data, c.old, c.old != "", nil)
		if got != c.want || wanted != nil {
			t.Errorf("%s %s %s over %q: %v, wanted %v, want %v", c.action.Name(protocol.TopicRecord), c.name, c.data, c.old, got, wanted, c.want)
		}
	}
	anonymous := &auth.User{ID: auth.Anonymous, ServerData: `{"role":"admin"}`}
	for _, c := range []struct {
		user *auth.User
		t    protocol.Topic
		a    protocol.Action
		name string
		data string
		want Verdict
	}{
		{ada, protocol.TopicEvent, protocol.EventEmit, "n", "11", Allow},
		{ada, protocol.TopicEvent, protocol.EventEmit, "n", `"11"`, Deny},
		{ada, protocol.TopicEvent, protocol.EventEmit, "n", "", Deny},
		{ada, protocol.TopicEvent, protocol.EventEmit, "n", "{", Fail},
		{ada, protocol.TopicEvent, protocol.EventEmit, "who", "", Allow},
		{anonymous, protocol.TopicEvent, protocol.EventEmit, "who", "", Deny},
		{someone, protocol.TopicEvent, protocol.EventEmit, "who", "", Fail}, // user.data is null
		{ada, protocol.TopicEvent, protocol.EventEmit, "named", "", Allow},
		{ada, protocol.TopicEvent, protocol.EventEmit, "odd", `{"x":1}`, Deny},
		{ada, protocol.TopicEvent, protocol.EventEmit, "odd", `{}`, Fail},
		{ada, protocol.TopicRPC, protocol.RPCRequest, "r/x", `{"to":"x"}`, Allow},
		{ada, protocol.TopicRPC, protocol.RPCRequest, "r/x", `{"to":"y"}`, Deny},
		// The owner has a say where the rule reads the record, and nobody asks twice elsewhere.
		{ada, protocol.TopicRecord, protocol.RecordUpdate, "u/x", "{}", NeedRecord},
		{ada, protocol.TopicRecord, protocol.RecordRead, "u/ada", "", Allow},
		{ada, protocol.TopicRecord, protocol.RecordRead, "u/bob", "", Deny},
		{ada, protocol.TopicRecord, protocol.RecordCreateAndUpdate, "u/x", "{}", NeedRecord},
		{ada, protocol.TopicRecord, protocol.RecordCreateAndUpdate, "u/nobody", "{}", Deny},
	} {
		if got := l.Door(c.user, c.t, c.a, c.name, c.data); got != c.want {
			t.Errorf("%s %s %q: %v, want %v", c.a.Name(c.t), c.name, c.data, got, c.want)
		}
	}
	if !l.ReadsRecord(protocol.RecordUpdate, "u/x") || l.ReadsRecord(protocol.RecordRead, "u/x") || l.ReadsRecord(protocol.RecordRead, "none") {
		t.Error("ReadsRecord is wrong about who reads the record")
	}
}

func TestReferencesAtTheDoorAreReadAtOnce(t *testing.T) {
	records := shelf{"perm/ada": `{"may":true,"next":"perm/b"}`, "perm/b": `{"next":"perm/c"}`, "perm/c": `{"next":"perm/d"}`, "perm/d": `{"next":1}`}
	l := live(t, "",
		`one/$u: {publish: "_('perm/' + $u).may"}, missing: {publish: "_('nothing') === null"}, none: {publish: "_('nothing').x"},
		 two: {publish: "_(_('perm/ada').next).next === 'perm/c'"}, three: {publish: "_(_(_('perm/ada').next).next).next === 'perm/d'"},
		 broken: {publish: "_('broken') === null"}, number: {publish: "_(data)"}, undef: {publish: "_('x' + undefined) === undefined"}, both: {publish: "_('perm/b').next + _('perm/c').next === 'perm/cperm/d'"}`, "", records)
	for name, want := range map[string]Verdict{
		"one/ada": Allow, "one/b": Deny, "one/zoe": Fail, "missing": Allow, "none": Fail, "two": Allow,
		"three":  Fail, // a third read in a row is one too many (spec 07 §7)
		"broken": Fail, "number": Fail, "undef": Allow, "both": Allow,
	} {
		if got := l.Door(someone, protocol.TopicEvent, protocol.EventEmit, name, "7"); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if got := NewLive(l.Load(), nil, nil).Door(someone, protocol.TopicEvent, protocol.EventEmit, "one/ada", ""); got != Fail {
		t.Errorf("without records: %v, want fail", got)
	}
}

// meeting is a shelf whose reads wait for each other.
type meeting struct {
	shelf
	met sync.WaitGroup
}

func (m *meeting) Read(ctx context.Context, name string) (string, bool, error) {
	m.met.Done()
	met := make(chan struct{})
	go func() {
		m.met.Wait()
		close(met)
	}()
	select {
	case <-met:
		return m.shelf.Read(ctx, name)
	case <-ctx.Done():
		return "", false, ctx.Err()
	}
}

func TestIndependentReferencesAreReadInParallel(t *testing.T) {
	m := &meeting{shelf: shelf{"a": `{"x":1}`, "b": `{"x":2}`, "c": `{"x":3}`}}
	m.met.Add(3)
	l := live(t, "", `e: {publish: "[_('a'), _('b'), _('c')].length === 3 && _('a').x + _('b').x + _('c').x === 6"}`, "", m)
	if got := l.Door(someone, protocol.TopicEvent, protocol.EventEmit, "e", ""); got != Allow {
		t.Errorf("got %v", got)
	}
}

func TestTheOwnerIsToldWhichRecordsToFetch(t *testing.T) {
	records := shelf{"item/7": `{"stock":1,"shop":"shop/1"}`, "shop/1": `{"open":true}`}
	l := live(t, `buy/$id: {write: "_('item/' + data.item).stock > 0 && _(_('item/' + data.item).shop).open && oldData.x !== 1"}`, "", "", nil)
	have := shelf{}
	known := func(name string) (string, bool, bool) {
		data, ok := have[name]
		return data, data != "-", ok
	}
	judge := func() (protocol.Action, []string) {
		return l.Judge(someone, protocol.RecordUpdate, "buy/1", `{"item":7}`, `{}`, true, known)
	}
	if got, wanted := judge(); got != 0 || !slices.Equal(wanted, []string{"item/7"}) {
		t.Fatalf("at first: %v, wanted %q", got, wanted)
	}
	have["item/7"] = records["item/7"]
	if got, wanted := judge(); got != 0 || !slices.Equal(wanted, []string{"shop/1"}) {
		t.Fatalf("then: %v, wanted %q", got, wanted)
	}
	maps.Copy(have, records)
	if got, wanted := judge(); got != 0 || wanted != nil {
		t.Errorf("in the end: %v, wanted %q", got, wanted)
	}
	have["shop/1"] = "-" // it does not exist
	if got, _ := judge(); got != protocol.RecordMessagePermissionError {
		t.Errorf("with the shop missing: %v", got)
	}
	for _, d := range l.Stats() {
		if want := map[string]uint64{"allow": 1, "fail": 1}[d.Result]; d.Section == "record" && d.Rule == "write" && d.Count != want {
			t.Errorf("counted %d %s, want %d: what is not decided yet does not count", d.Count, d.Result, want)
		}
	}
}

func TestARefusalIsLoggedWithItsRuleAndWithoutSecrets(t *testing.T) {
	var out strings.Builder
	rules := load(t, "record: {'*': {}, 'v/$id': {write: 'data.secret === 5 && oldData.x.y'}}\n"+restEvent+restRPC+restPresence)
	l := NewLive(rules, nil, slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	l.Judge(someone, protocol.RecordUpdate, "v/1", `{"secret":5}`, `{}`, true, nil)
	l.Judge(someone, protocol.RecordUpdate, "v/1", `{"secret":5}`, `{"x":{}}`, true, nil)
	l.Door(someone, protocol.TopicRecord, protocol.RecordRead, "v/1", "")
	for _, want := range []string{`path=v/$id`, `part=oldData.x.y`, "rule=write", "oldData.x", `why="no path says so"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), `"secret":5`) {
		t.Errorf("the log holds data:\n%s", &out)
	}
}

// Rules are judged by many goroutines at once, each with its own message.
func TestRulesAreJudgedByManyAtOnce(t *testing.T) {
	l := live(t, `u/$id: {read: "user.id === $id", write: "data.n === oldData.n + 1 && _('r/' + data.n).n === data.n"}`, "", "", nil)
	known := func(name string) (string, bool, bool) {
		return fmt.Sprintf(`{"n":%s}`, strings.TrimPrefix(name, "r/")), true, true
	}
	var wg sync.WaitGroup
	var wrong atomic.Int64
	for g := range 8 {
		wg.Go(func() {
			u := &auth.User{ID: fmt.Sprint(g)}
			for i := range 2000 {
				mine, other := fmt.Sprintf("u/%d", g), fmt.Sprintf("u/%d", g+1)
				if v, _ := l.Judge(u, protocol.RecordRead, mine, "", "{}", true, nil); v != 0 {
					wrong.Add(1)
				}
				if v, _ := l.Judge(u, protocol.RecordRead, other, "", "{}", true, nil); v == 0 {
					wrong.Add(1)
				}
				if v, _ := l.Judge(u, protocol.RecordUpdate, mine, fmt.Sprintf(`{"n":%d}`, i+1), fmt.Sprintf(`{"n":%d}`, i), true, known); v != 0 {
					wrong.Add(1)
				}
				if v, _ := l.Judge(u, protocol.RecordUpdate, mine, fmt.Sprintf(`{"n":%d}`, i+2), fmt.Sprintf(`{"n":%d}`, i), true, known); v == 0 {
					wrong.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if wrong.Load() > 0 {
		t.Errorf("%d decisions were wrong", wrong.Load())
	}
}

func BenchmarkJudge(b *testing.B) {
	l := live(b, `u/$id: {read: "user.id === $id", write: "data.value > oldData.value"}, ref/$id: {read: "_('r').ok"}`,
		`n: {publish: "data.value > 10"}`, "", nil)
	data := fmt.Sprintf(`{"value":2,"pad":%q}`, strings.Repeat("x", 180))
	old := fmt.Sprintf(`{"value":1,"pad":%q}`, strings.Repeat("x", 180))
	known := shelf{"r": `{"ok":true}`}.known
	for _, c := range []struct {
		name   string
		action protocol.Action
		record string
	}{{"constant", protocol.RecordCreate, "x/someone"}, {"user", protocol.RecordRead, "u/someone"}, {"payload", protocol.RecordUpdate, "u/someone"}, {"reference", protocol.RecordRead, "ref/1"}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got, _ := l.Judge(someone, c.action, c.record, data, old, true, known); got != 0 {
					b.Fatal("denied")
				}
			}
		})
	}
}

// Calls to the server's own names are the server's to answer, whatever the rules say.
func TestNoRuleIsAskedAboutCallsToTheServer(t *testing.T) {
	l := live(t, "", "", `"hadal/*": {request: false, provide: true}`, nil)
	if got := l.Door(someone, protocol.TopicRPC, protocol.RPCRequest, "hadal/explain", ""); got != Allow {
		t.Errorf("a call: %v", got)
	}
	if got := l.Door(someone, protocol.TopicRPC, protocol.RPCProvide, "hadal/explain", ""); got != Deny {
		t.Errorf("providing: %v", got)
	}
}
