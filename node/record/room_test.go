package record

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth"
	"hadal/cluster"
	"hadal/node/listen"
	"hadal/node/sub"
	"hadal/protocol"
	"hadal/store"
)

// client is a logged-in client whose messages are kept as text.
type client struct {
	id   uint64
	user *auth.User
	gone atomic.Bool

	mu  sync.Mutex
	got []protocol.Message // guarded by mu
	// shared are the answers that others may get too. Guarded by mu.
	shared []*protocol.Outbound
}

var clientIDs atomic.Uint64

func newClient(name string) *client {
	return &client{id: clientIDs.Add(1), user: &auth.User{ID: name}}
}

func (c *client) ID() uint64                 { return c.id }
func (c *client) User() *auth.User           { return c.user }
func (c *client) Gone() bool                 { return c.gone.Load() }
func (c *client) Reserve(int) bool           { return true }
func (c *client) Release(int)                {}
func (c *client) Pace()                      {}
func (c *client) Answer(m *protocol.Message) { c.keep(*m) }
func (c *client) AnswerShared(o *protocol.Outbound) {
	c.keep(o.Message)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shared = append(c.shared, o)
}

func (c *client) Send(o *protocol.Outbound) { c.keep(o.Message) }

func (c *client) keep(m protocol.Message) {
	m.Names = append([]string(nil), m.Names...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, m)
}

// heard returns what came since the last call, as text.
func (c *client) heard() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for i := range c.got {
		all = append(all, text(&c.got[i]))
	}
	c.got = nil
	return all
}

// text writes what a message carries in one line.
func text(m *protocol.Message) string {
	var b strings.Builder
	b.WriteString(m.Action.Name(m.Topic))
	for _, f := range []struct {
		label, value string
		shown        bool
	}{
		{"name", m.Name, m.Name != ""},
		{"names", strings.Join(m.Names, ","), len(m.Names) > 0},
		{"v", fmt.Sprint(m.Version), m.Carries(protocol.HasVersion)},
		{"path", m.Path, m.Carries(protocol.HasPath)},
		{"data", m.Data, m.Data != ""},
		{"versions", fmt.Sprint(m.Versions), m.Carries(protocol.HasVersions)},
		{"corr", m.CorrelationID, m.CorrelationID != ""},
		{"of", m.OriginalAction.Name(protocol.TopicRecord), m.OriginalAction != 0},
	} {
		if f.shown {
			fmt.Fprintf(&b, " %s=%s", f.label, f.value)
		}
	}
	if m.IsAck {
		b.WriteString(" ack")
	}
	if m.IsError {
		b.WriteString(" error")
	}
	if m.IsWriteAck {
		b.WriteString(" writeAck")
	}
	return b.String()
}

// rules is a checker made of a function; nil allows everything.
type rules func(u *auth.User, a protocol.Action, name, data, old string, exists bool) protocol.Action

func (f rules) Judge(u *auth.User, a protocol.Action, name, data, old string, exists bool, _ func(string) (string, bool, bool)) (protocol.Action, []string) {
	if f == nil {
		return 0, nil
	}
	return f(u, a, name, data, old, exists), nil
}

func (f rules) ReadsRecord(protocol.Action, string) bool { return true }

// faulty is a store whose appends and loads can be made to fail or wait.
type faulty struct {
	store.Store
	onAppend func(ops []store.Op) error
	onLoad   func(ctx context.Context, name string) error
	onFence  func() error
}

func (f *faulty) Append(ctx context.Context, ops []store.Op) error {
	if f.onAppend != nil {
		if err := f.onAppend(ops); err != nil {
			return err
		}
	}
	return f.Store.Append(ctx, ops)
}

func (f *faulty) Load(ctx context.Context, name string) (store.Record, error) {
	if f.onLoad != nil {
		if err := f.onLoad(ctx, name); err != nil {
			return store.Record{}, err
		}
	}
	return f.Store.Load(ctx, name)
}

func (f *faulty) Fence(ctx context.Context, epoch uint64) error {
	if f.onFence != nil {
		if err := f.onFence(); err != nil {
			return err
		}
	}
	return f.Store.Fence(ctx, epoch)
}

type options struct {
	cfg   func(*Config)
	keep  func(*KeepConfig)
	rules checker // nil allows everything
	store store.Store
}

// start runs a room until the test ends.
func start(t testing.TB, o options) *Room {
	t.Helper()
	if os.Getenv("HADAL_TEST_ELSEWHERE") != "" {
		return startElsewhere(t, o)
	}
	r := newRoom(o)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return r
}

// newRoom makes a room that is alone.
func newRoom(o options) *Room {
	cfg, keep := DefaultConfig(), DefaultKeepConfig()
	if o.cfg != nil {
		o.cfg(&cfg)
	}
	if o.keep != nil {
		o.keep(&keep)
	}
	if o.store == nil {
		o.store = store.NewMemory()
	}
	if o.rules == nil {
		o.rules = rules(nil)
	}
	log := slog.New(slog.DiscardHandler)
	subs := sub.NewRegistry()
	return New(cfg, keep, Deps{
		Table: cluster.NewSoloInMemory("test"), Bus: cluster.Alone{}, Subs: subs,
		Open:   func(context.Context, int) (store.Store, error) { return o.store, nil },
		Listen: listen.New(protocol.TopicRecord, listen.DefaultConfig(), subs, cluster.NewSoloInMemory("test"), cluster.Alone{}, log),
		Rules:  o.rules, Log: log, Observe: func(time.Duration) {},
	})
}

// say parses "ACTION name v=1 path=a data={} corr=1 ack" and hands it to the room.
func say(t testing.TB, r *Room, c sub.Client, line string) {
	t.Helper()
	m := protocol.Message{Topic: protocol.TopicRecord}
	word, rest, _ := strings.Cut(line, " ")
	for a := protocol.Action(1); a < 120; a++ {
		if a.Known(protocol.TopicRecord) && a.Name(protocol.TopicRecord) == word {
			m.Action = a
		}
	}
	if m.Action == 0 {
		t.Fatalf("no action %q", word)
	}
	for _, f := range strings.Fields(rest) {
		key, value, found := strings.Cut(f, "=")
		switch {
		case key == "v" && found:
			var n int64
			if _, err := fmt.Sscan(value, &n); err != nil || n > math.MaxInt32 {
				t.Fatalf("version %q", value)
			}
			m.Version, m.Has = int32(n), m.Has|protocol.HasVersion
		case key == "path" && found:
			m.Path, m.Has = value, m.Has|protocol.HasPath
		case key == "data" && found:
			m.Data, m.Has = value, m.Has|protocol.HasData
		case key == "corr" && found:
			m.CorrelationID, m.Has = value, m.Has|protocol.HasCorrelationID
		case key == "names" && found:
			m.Names = strings.Split(value, ",")
		case key == "ack":
			m.IsWriteAck = true
		default:
			m.Name, m.Has = f, m.Has|protocol.HasName
		}
	}
	r.Handle(c, &m)
}

// settle waits until everything asked so far has been answered.
func settle(t testing.TB, r *Room) {
	t.Helper()
	if err := r.Flush(t.Context()); err != nil {
		t.Fatalf("Flush = %v", err)
	}
}

func wantHeard(t testing.TB, who string, c *client, want ...string) {
	t.Helper()
	got := c.heard()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s heard\n\t%s\nwant\n\t%s", who, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestConversations(t *testing.T) {
	// Each step is "who: message"; a line "who hears: ..." lists what came since
	// the last such line for that client, one message a line.
	tests := map[string]struct {
		options   options
		script    string
		elsewhere string // the same with an owner on another node, if it differs
	}{
		"a new record is version 0, acknowledged before it is read": {script: `
			a: SUBSCRIBECREATEANDREAD names=r corr=0
			a hears: SUBSCRIBECREATEANDREAD names=r corr=0 ack
			a hears: READ_RESPONSE name=r v=0 data={}`},
		"a second subscription is complained about and read all the same": {script: `
			a: SUBSCRIBECREATEANDREAD names=r corr=0
			a: SUBSCRIBECREATEANDREAD names=r corr=1
			a hears: SUBSCRIBECREATEANDREAD names=r corr=0 ack
			a hears: READ_RESPONSE name=r v=0 data={}
			a hears: SUBSCRIBECREATEANDREAD names=r corr=1 ack
			a hears: MULTIPLE_SUBSCRIPTIONS name=r of=SUBSCRIBE
			a hears: READ_RESPONSE name=r v=0 data={}`},
		"missing is not found for READ and version -1 for HEAD": {script: `
			a: READ r
			a: HEAD r
			a hears: RECORD_NOT_FOUND name=r of=READ error
			a hears: HEAD_RESPONSE name=r v=-1`},
		"a read sees the client's own earlier write": {script: `
			a: CREATEANDUPDATE r v=-1 data={"x":1}
			a: READ r
			a: HEAD r
			a hears: READ_RESPONSE name=r v=1 data={"x":1}
			a hears: HEAD_RESPONSE name=r v=1`},
		"SUBSCRIBEANDREAD subscribes to a missing record without making it": {script: `
			a: SUBSCRIBEANDREAD names=r corr=0
			a: HEAD r
			b: CREATEANDUPDATE r v=-1 data={"x":1}
			a hears: SUBSCRIBEANDREAD names=r corr=0 ack
			a hears: READ_RESPONSE name=r v=-1 data={}
			a hears: HEAD_RESPONSE name=r v=-1
			a hears: UPDATE name=r v=1 data={"x":1}`},
		"writes reach the other subscribers with known fields only": {script: `
			a: SUBSCRIBECREATEANDREAD names=r corr=0
			b: SUBSCRIBECREATEANDREAD names=r corr=0
			a hears: SUBSCRIBECREATEANDREAD names=r corr=0 ack
			a hears: READ_RESPONSE name=r v=0 data={}
			b hears: SUBSCRIBECREATEANDREAD names=r corr=0 ack
			b hears: READ_RESPONSE name=r v=0 data={}
			a: UPDATE r v=1 data={"x":1} corr=7 ack
			a: PATCH r v=2 path=y data=2
			a: ERASE r v=3 path=x
			a: PATCH_MULTI r v=4 data=[{"path":"z","data":3},{"path":"y"}]
			a: READ r
			a hears: WRITE_ACKNOWLEDGEMENT name=r corr=7 writeAck
			a hears: READ_RESPONSE name=r v=4 data={"z":3}
			b hears: UPDATE name=r v=1 data={"x":1}
			b hears: PATCH name=r v=2 path=y data=2
			b hears: PATCH name=r v=3 path=x
			b hears: PATCH_MULTI name=r v=4 data=[{"path":"z","data":3},{"path":"y"}]`},
		"version -1 means whatever comes next": {script: `
			a: CREATEANDUPDATE r v=-1 data={}
			a: CREATEANDPATCH r v=-1 path=x data=1
			a: PATCH r v=-1 path=y data=2
			a: READ r
			a hears: READ_RESPONSE name=r v=3 data={"x":1,"y":2}`},
		"an old version is answered with the present state": {script: `
			a: CREATEANDUPDATE r v=1 data={"x":1}
			b: UPDATE r v=1 data={"x":2} corr=3 ack
			b: PATCH r v=1 path=x data=2
			b hears: VERSION_EXISTS name=r v=1 data={"x":1} corr=3 of=UPDATE writeAck
			b hears: VERSION_EXISTS name=r v=1 data={"x":1} of=PATCH`},
		"a version too far ahead is invalid, and says so as an error": {script: `
			a: CREATEANDUPDATE r v=5 data={} corr=1 ack
			a: CREATEANDUPDATE r v=1 data={}
			a: PATCH r v=9 path=x data=1
			a hears: INVALID_VERSION name=r v=0 data={} corr=1 of=UPDATE error writeAck
			a hears: INVALID_VERSION name=r v=1 path=x data=1 of=PATCH error`},
		"a write on a missing record fails without ack and creates with ack": {script: `
			a: UPDATE r v=1 data={}
			a: PATCH r v=1 path=x data=1
			a: ERASE r v=1 path=x
			a: PATCH r v=1 path=x data=1 corr=4 ack
			a hears: RECORD_UPDATE_ERROR name=r data="record does not exist" error
			a hears: RECORD_UPDATE_ERROR name=r data="record does not exist" error
			a hears: RECORD_UPDATE_ERROR name=r data="record does not exist" error
			a hears: WRITE_ACKNOWLEDGEMENT name=r corr=4 writeAck`},
		"data that is no record is refused with an echo": {script: `
			a: CREATEANDUPDATE r v=1 data=5 corr=1 ack
			a: UPDATE r v=1 data=null
			a: UPDATE r v=1
			a: PATCH r v=1 path=x data={oops
			a: PATCH r v=1 path= data=1
			a: PATCH r v=1 path=__proto__.x data=1
			a: PATCH_MULTI r v=1 data=[]
			a: PATCH_MULTI r v=1 data=[{"data":1}]
			a: PATCH_MULTI r v=1 data=[{"path":"constructor.x"}]
			a hears: INVALID_MESSAGE_DATA name=r v=1 data=5 corr=1 of=UPDATE error writeAck
			a hears: INVALID_MESSAGE_DATA name=r v=1 data=null of=UPDATE error
			a hears: INVALID_MESSAGE_DATA name=r v=1 of=UPDATE error
			a hears: INVALID_MESSAGE_DATA name=r v=1 path=x data={oops of=PATCH error
			a hears: INVALID_MESSAGE_DATA name=r v=1 path= data=1 of=PATCH error
			a hears: INVALID_MESSAGE_DATA name=r v=1 path=__proto__.x data=1 of=PATCH error
			a hears: INVALID_MESSAGE_DATA name=r v=1 data=[] of=PATCH_MULTI error
			a hears: INVALID_MESSAGE_DATA name=r v=1 data=[{"data":1}] of=PATCH_MULTI error
			a hears: INVALID_MESSAGE_DATA name=r v=1 data=[{"path":"constructor.x"}] of=PATCH_MULTI error`},
		"a path through null replaces it": {script: `
			a: CREATEANDUPDATE r v=1 data={"a":null}
			a: PATCH r v=2 path=a.b data=1
			a: READ r
			a hears: READ_RESPONSE name=r v=2 data={"a":{"b":1}}`},
		"a deleted record is gone for everybody, and starts again at 0": {script: `
			a: SUBSCRIBECREATEANDREAD names=r corr=0
			b: SUBSCRIBECREATEANDREAD names=r corr=0
			a: UPDATE r v=1 data={"x":1}
			a: DELETE r
			b: HEAD r
			b: SUBSCRIBECREATEANDREAD names=r corr=1
			a: UPDATE r v=1 data={"x":2}
			a hears: SUBSCRIBECREATEANDREAD names=r corr=0 ack
			a hears: READ_RESPONSE name=r v=0 data={}
			a hears: DELETE_SUCCESS name=r
			b hears: SUBSCRIBECREATEANDREAD names=r corr=0 ack
			b hears: READ_RESPONSE name=r v=0 data={}
			b hears: UPDATE name=r v=1 data={"x":1}
			b hears: DELETED name=r
			b hears: HEAD_RESPONSE name=r v=-1
			b hears: SUBSCRIBECREATEANDREAD names=r corr=1 ack
			b hears: READ_RESPONSE name=r v=0 data={}
			b hears: UPDATE name=r v=1 data={"x":2}`},
		"deleting what does not exist succeeds": {script: `
			a: DELETE r
			a hears: DELETE_SUCCESS name=r`},
		"a resubscription learns all versions": {script: `
			a: CREATEANDUPDATE r1 v=-1 data={}
			a: CREATEANDUPDATE r2 v=-1 data={}
			a: CREATEANDUPDATE r2 v=-1 data={}
			b: SUBSCRIBEANDHEAD names=r1,gone,r2 corr=0
			b: SUBSCRIBEANDHEAD names=r1 corr=1
			a: UPDATE r1 v=2 data={"x":1}
			b hears: HEAD_RESPONSE_BULK versions=[{r1 1} {r2 2}]
			b hears: SUBSCRIBEANDHEAD corr=0 ack
			b hears: HEAD_RESPONSE name=gone v=-1
			b hears: MULTIPLE_SUBSCRIPTIONS name=r1 of=SUBSCRIBEANDHEAD
			b hears: HEAD_RESPONSE_BULK versions=[{r1 1}]
			b hears: SUBSCRIBEANDHEAD corr=1 ack
			b hears: UPDATE name=r1 v=2 data={"x":1}`, elsewhere: `
			a: CREATEANDUPDATE r1 v=-1 data={}
			a: CREATEANDUPDATE r2 v=-1 data={}
			a: CREATEANDUPDATE r2 v=-1 data={}
			b: SUBSCRIBEANDHEAD names=r1,gone,r2 corr=0
			b: SUBSCRIBEANDHEAD names=r1 corr=1
			a: UPDATE r1 v=2 data={"x":1}
			b hears: HEAD_RESPONSE_BULK versions=[]
			b hears: HEAD_RESPONSE name=r1 v=1
			b hears: HEAD_RESPONSE name=r2 v=2
			b hears: HEAD_RESPONSE name=gone v=-1
			b hears: SUBSCRIBEANDHEAD corr=0 ack
			b hears: HEAD_RESPONSE_BULK versions=[]
			b hears: MULTIPLE_SUBSCRIPTIONS name=r1 of=SUBSCRIBEANDHEAD
			b hears: HEAD_RESPONSE name=r1 v=1
			b hears: SUBSCRIBEANDHEAD corr=1 ack
			b hears: UPDATE name=r1 v=2 data={"x":1}`},
		"SUBSCRIBE and UNSUBSCRIBE are acknowledged by correlation id alone": {script: `
			a: SUBSCRIBE names=r,r2 corr=0
			b: CREATEANDUPDATE r v=-1 data={"x":1}
			a: UNSUBSCRIBE names=r corr=r
			a: UNSUBSCRIBE names=never corr=never
			b: UPDATE r v=2 data={}
			a hears: SUBSCRIBE corr=0 ack
			a hears: UPDATE name=r v=1 data={"x":1}
			a hears: UNSUBSCRIBE corr=r ack
			a hears: UNSUBSCRIBE corr=never ack`},
		"NOTIFY tells every subscriber what the record is now": {script: `
			a: SUBSCRIBECREATEANDREAD names=r corr=0
			b: SUBSCRIBEANDREAD names=gone corr=0
			a: NOTIFY names=r,gone,unheard corr=n
			a hears: SUBSCRIBECREATEANDREAD names=r corr=0 ack
			a hears: READ_RESPONSE name=r v=0 data={}
			a hears: UPDATE name=r v=0 data={}
			a hears: NOTIFY names=r,gone,unheard corr=n ack
			b hears: SUBSCRIBEANDREAD names=gone corr=0 ack
			b hears: READ_RESPONSE name=gone v=-1 data={}
			b hears: DELETED name=gone`},
		"the hot path takes the last writer at version 0": {
			options: options{cfg: func(c *Config) { c.StorageHotPathPrefixes = []string{"hot/"} }}, script: `
			b: SUBSCRIBEANDREAD names=hot/1 corr=0
			a: CREATEANDUPDATE hot/1 v=-1 data=1 corr=1 ack
			a: CREATEANDUPDATE hot/1 v=9 data={"x":2}
			a: CREATEANDPATCH hot/1 v=-1 path=x data=1
			a: READ hot/1
			a hears: WRITE_ACKNOWLEDGEMENT name=hot/1 corr=1 writeAck
			a hears: INVALID_PATCH_ON_HOTPATH name=hot/1 of=CREATEANDPATCH
			a hears: READ_RESPONSE name=hot/1 v=0 data={"x":2}
			b hears: SUBSCRIBEANDREAD names=hot/1 corr=0 ack
			b hears: READ_RESPONSE name=hot/1 v=-1 data={}
			b hears: UPDATE name=hot/1 v=0 data=1
			b hears: UPDATE name=hot/1 v=0 data={"x":2}`},
		"a record that would grow too large is refused by name": {
			options: options{keep: func(k *KeepConfig) { k.MaxSize = 20 }}, script: `
			a: CREATEANDUPDATE r v=1 data={"x":"0123456789"}
			a: PATCH r v=2 path=y data="0123456789" corr=1 ack
			a: READ r
			a hears: RECORD_UPDATE_ERROR name=r data="record would exceed records.maxSize" corr=1 error writeAck
			a hears: READ_RESPONSE name=r v=1 data={"x":"0123456789"}`},
		"an index no array has is refused": {script: `
			a: CREATEANDUPDATE r v=1 data={"l":[1]}
			a: PATCH r v=2 path=l.word data=1
			a: READ r
			a hears: INVALID_MESSAGE_DATA name=r v=2 path=l.word data=1 of=PATCH error
			a hears: READ_RESPONSE name=r v=1 data={"l":[1]}`},
	}
	for name, test := range tests {
		for where, start := range map[string]func(testing.TB, options) *Room{"": start, ", elsewhere": startElsewhere} {
			t.Run(name+where, func(t *testing.T) {
				r, script := start(t, test.options), test.script
				if where != "" && test.elsewhere != "" {
					script = test.elsewhere
				}
				clients := map[string]*client{"a": newClient("a"), "b": newClient("b")}
				var want map[string][]string
				check := func() {
					settle(t, r)
					for who, lines := range want {
						wantHeard(t, who, clients[who], lines...)
					}
					want = nil
				}
				for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
					line = strings.TrimSpace(line)
					if who, what, ok := strings.Cut(line, " hears: "); ok {
						if want == nil {
							want = make(map[string][]string)
						}
						want[who] = append(want[who], what)
						continue
					}
					check()
					who, what, _ := strings.Cut(line, ": ")
					say(t, r, clients[who], what)
					settle(t, r)
				}
				check()
			})
		}
	}
}

func TestRulesAreJudgedOnTheStateTheWriteLandsOn(t *testing.T) {
	onlyUp := func(u *auth.User, a protocol.Action, name, data, old string, exists bool) protocol.Action {
		switch a {
		case protocol.RecordUpdate, protocol.RecordPatch:
			if data <= old { // of one length in this test
				return protocol.RecordMessageDenied
			}
		case protocol.RecordErase, protocol.RecordCreate:
			if u.ID == "b" {
				return protocol.RecordMessageDenied
			}
		}
		return 0
	}
	r := start(t, options{rules: rules(onlyUp)})
	a, b := newClient("a"), newClient("b")
	ask := func(c *client, line string) { say(t, r, c, line); settle(t, r) }
	ask(a, `CREATEANDUPDATE r v=-1 data={"n":5}`)
	ask(a, `PATCH r v=-1 path=n data=4 corr=1 ack`)
	ask(a, `PATCH r v=-1 path=n data=6 corr=2 ack`)
	ask(a, `CREATEANDPATCH r v=-1 path=n data=3`)
	ask(b, `ERASE r v=-1 path=n`)
	ask(b, `CREATEANDPATCH r v=-1 path=n data=9`)
	ask(b, `PATCH missing v=1 path=n data=9 corr=1 ack`)
	ask(b, `SUBSCRIBECREATEANDREAD names=missing,r corr=5`)
	wantHeard(t, "a", a,
		"MESSAGE_DENIED name=r corr=1 of=PATCH error writeAck",
		"WRITE_ACKNOWLEDGEMENT name=r corr=2 writeAck",
		"MESSAGE_DENIED name=r of=CREATEANDPATCH error")
	wantHeard(t, "b", b,
		"MESSAGE_DENIED name=r of=ERASE error",
		"MESSAGE_DENIED name=r of=CREATEANDPATCH error",
		"MESSAGE_DENIED name=missing corr=1 of=PATCH error writeAck",
		"SUBSCRIBECREATEANDREAD names=missing,r corr=5 ack",
		"MESSAGE_DENIED name=missing corr=5 of=SUBSCRIBECREATEANDREAD error",
		`READ_RESPONSE name=r v=2 data={"n":6}`)
}

func TestNothingLeavesBeforeItsCommit(t *testing.T) {
	release := make(chan struct{})
	s := &faulty{Store: store.NewMemory(), onAppend: func([]store.Op) error { <-release; return nil }}
	r := start(t, options{store: s})
	a, b := newClient("a"), newClient("b")
	say(t, r, a, `CREATEANDUPDATE r v=1 data={"x":1} corr=1 ack`)
	say(t, r, b, `READ r`)
	say(t, r, b, `UPDATE r v=1 data={"x":2}`)
	say(t, r, b, `READ other`) // depends on nothing that waits
	// "other" waits for nothing: once the owner has answered it, it has seen all
	// that was asked before.
	if _, err := r.Get(t.Context(), "other"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("Get = %v", err)
	}
	wantHeard(t, "a", a)
	wantHeard(t, "b", b, "RECORD_NOT_FOUND name=other of=READ error")
	close(release)
	settle(t, r)
	wantHeard(t, "a", a, "WRITE_ACKNOWLEDGEMENT name=r corr=1 writeAck")
	wantHeard(t, "b", b,
		`READ_RESPONSE name=r v=1 data={"x":1}`,
		`VERSION_EXISTS name=r v=1 data={"x":1} of=UPDATE`)
}

func (c *client) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got)
}

// An append without a clear outcome is repeated after a fence, whether the first
// attempt had arrived or not.
func TestAFailedAppendIsRepeatedAfterAFence(t *testing.T) {
	for _, arrived := range []bool{false, true} {
		memory := store.NewMemory()
		appends, fences := 0, 0
		s := &faulty{Store: memory}
		s.onAppend = func(ops []store.Op) error {
			if appends++; appends > 1 {
				return nil
			}
			if arrived {
				if err := memory.Append(t.Context(), ops); err != nil {
					t.Errorf("Append = %v", err)
				}
			}
			return errors.New("no answer")
		}
		s.onFence = func() error { fences++; return nil }
		r := start(t, options{store: s})
		a, b := newClient("a"), newClient("b")
		say(t, r, a, `CREATEANDUPDATE r v=1 data={"x":1} corr=1 ack`)
		say(t, r, a, `UPDATE r v=2 data={"x":2} corr=2 ack`)
		say(t, r, b, `READ r`)
		settle(t, r)
		wantHeard(t, "a", a, "WRITE_ACKNOWLEDGEMENT name=r corr=1 writeAck", "WRITE_ACKNOWLEDGEMENT name=r corr=2 writeAck")
		wantHeard(t, "b", b, `READ_RESPONSE name=r v=2 data={"x":2}`)
		if fences != 2 {
			t.Errorf("%d fences, want one at the start and one after the failure", fences)
		}
		if err := r.Ready(); err != nil {
			t.Errorf("Ready = %v after the store came back", err)
		}
	}
}

// awayStore fails from the word go until it is back.
func awayStore() (s *faulty, away *atomic.Bool) {
	away = new(atomic.Bool)
	s = &faulty{Store: store.NewMemory()}
	fail := func() error {
		if away.Load() {
			return errors.New("disk on fire")
		}
		return nil
	}
	s.onAppend = func([]store.Op) error { return fail() }
	s.onFence = fail
	return s, away
}

func TestAStoreThatStaysAwayIsToldAndItsWritesForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, away := awayStore()
		r := start(t, options{store: s})
		a, b := newClient("a"), newClient("b")
		say(t, r, b, `SUBSCRIBECREATEANDREAD names=r corr=0`)
		settle(t, r)
		b.heard()
		away.Store(true)
		say(t, r, a, `UPDATE r v=1 data={"x":1} corr=1 ack`)
		synctest.Wait()
		say(t, r, a, `CREATEANDUPDATE new v=1 data={"x":1} corr=2 ack`) // held back
		say(t, r, b, `READ r`)
		synctest.Wait()
		wantHeard(t, "a at first", a)
		time.Sleep(holdTime)
		synctest.Wait()
		wantHeard(t, "a", a,
			`RECORD_UPDATE_ERROR name=r data="the store did not answer; the write may have been made all the same" corr=1 error writeAck`,
			`RECORD_UPDATE_ERROR name=new data="store does not accept writes" corr=2 error writeAck`)
		wantHeard(t, "b", b, "RECORD_LOAD_ERROR name=r of=READ error")
		say(t, r, a, `UPDATE r v=1 data={"x":1} corr=3 ack`)
		synctest.Wait()
		wantHeard(t, "a while refused", a, `RECORD_UPDATE_ERROR name=r data="store does not accept writes" corr=3 error writeAck`)
		if r.Ready() == nil {
			t.Error("Ready while the store is away")
		}
		away.Store(false)
		time.Sleep(2 * time.Second) // the pause between two fences
		synctest.Wait()
		say(t, r, a, `READ r`)
		say(t, r, a, `READ new`)
		say(t, r, a, `UPDATE r v=1 data={"x":2} corr=4 ack`)
		settle(t, r)
		// Of two records each is answered when it has been loaded.
		got, missing := a.heard(), "RECORD_NOT_FOUND name=new of=READ error"
		rest := slices.DeleteFunc(slices.Clone(got), func(m string) bool { return m == missing })
		want := []string{"READ_RESPONSE name=r v=0 data={}", "WRITE_ACKNOWLEDGEMENT name=r corr=4 writeAck"}
		if len(got) != 3 || !slices.Equal(rest, want) {
			t.Errorf("a heard in the end\n\t%s\nwant, in this order,\n\t%s\nand somewhere\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"), missing)
		}
		wantHeard(t, "b in the end", b, `UPDATE name=r v=1 data={"x":2}`)
	})
}

func TestAFullStoreRefusesAndGoesOn(t *testing.T) {
	var full atomic.Bool
	fences := 0
	s := &faulty{Store: store.NewMemory()}
	s.onAppend = func([]store.Op) error {
		if full.Load() {
			return fmt.Errorf("volume 7 has 3 bytes left: %w", store.ErrFull)
		}
		return nil
	}
	s.onFence = func() error { fences++; return nil }
	r := start(t, options{store: s})
	a := newClient("a")
	say(t, r, a, `CREATEANDUPDATE r v=1 data={"x":1} corr=1 ack`)
	settle(t, r)
	full.Store(true)
	say(t, r, a, `UPDATE r v=2 data={"x":2} corr=2 ack`)
	say(t, r, a, `CREATEANDUPDATE new v=1 data={"x":1} corr=3 ack`)
	settle(t, r)
	say(t, r, a, `READ r`)
	settle(t, r)
	say(t, r, a, `READ new`)
	settle(t, r)
	full.Store(false)
	say(t, r, a, `UPDATE r v=2 data={"x":3} corr=4 ack`)
	settle(t, r)
	const why = `data="the server's disk has no room or takes no writes; nothing was written, try again later"`
	wantHeard(t, "a", a,
		"WRITE_ACKNOWLEDGEMENT name=r corr=1 writeAck",
		"RECORD_UPDATE_ERROR name=r "+why+" corr=2 error writeAck",
		"RECORD_UPDATE_ERROR name=new "+why+" corr=3 error writeAck",
		`READ_RESPONSE name=r v=1 data={"x":1}`,
		"RECORD_NOT_FOUND name=new of=READ error",
		"WRITE_ACKNOWLEDGEMENT name=r corr=4 writeAck")
	if fences != 1 {
		t.Errorf("%d fences, want the one at the start: a store that refuses is as before", fences)
	}
}

// A record whose creation failed is loaded afresh for whoever waits for it, and
// does not exist.
func TestWhatFailedIsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, loads := make(chan struct{}), atomic.Int64{}
		s := &faulty{Store: store.NewMemory(), onAppend: func([]store.Op) error {
			<-release
			return store.ErrFull
		}}
		s.onLoad = func(context.Context, string) error { loads.Add(1); return nil }
		r := start(t, options{store: s})
		a := newClient("a")
		say(t, r, a, `CREATEANDUPDATE r v=1 data={"x":1}`)
		synctest.Wait() // it is being appended
		// The next batch is full, so that the read waits in the record's queue.
		for i := range batchNames {
			say(t, r, newClient("b"), fmt.Sprintf(`CREATEANDUPDATE n/%d v=1 data={}`, i))
		}
		synctest.Wait()
		before := loads.Load()
		say(t, r, a, `READ r`)
		say(t, r, a, `READ r`)
		synctest.Wait()
		close(release)
		synctest.Wait()
		if loads.Load() == before {
			t.Error("the record was not loaded again")
		}
		heard := strings.Join(a.heard(), "\n")
		if strings.Count(heard, "RECORD_NOT_FOUND name=r") != 2 {
			t.Errorf("a heard\n%s\nwant twice that there is no r", heard)
		}
	})
}

func TestFastAnswersBeforeTheCommitAndNeverGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, away := awayStore()
		r := start(t, options{store: s, keep: func(k *KeepConfig) { k.Durability = "fast" }})
		a, b := newClient("a"), newClient("b")
		say(t, r, b, `SUBSCRIBECREATEANDREAD names=r corr=0`)
		settle(t, r)
		b.heard()
		away.Store(true)
		say(t, r, a, `UPDATE r v=1 data={"x":1} corr=1 ack`)
		synctest.Wait()
		wantHeard(t, "a", a, "WRITE_ACKNOWLEDGEMENT name=r corr=1 writeAck")
		wantHeard(t, "b", b, `UPDATE name=r v=1 data={"x":1}`)
		time.Sleep(10 * time.Second)
		say(t, r, a, `UPDATE r v=2 data={"x":2} corr=2 ack`)
		say(t, r, a, `READ r`)
		synctest.Wait()
		wantHeard(t, "a while refused", a,
			`RECORD_UPDATE_ERROR name=r data="store does not accept writes" corr=2 error writeAck`,
			`READ_RESPONSE name=r v=1 data={"x":1}`)
		away.Store(false)
		settle(t, r)
		rec, err := s.Load(t.Context(), "r")
		if err != nil || rec.Version != 1 || rec.Data != `{"x":1}` {
			t.Errorf("the store holds %+v, %v, want what was acknowledged", rec, err)
		}
	})
}

// The end of the process is not held up for ever by a store that stays away.
func TestFastEndsWithAStoreThatStaysAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, away := awayStore()
		r := start(t, options{store: s, keep: func(k *KeepConfig) { k.Durability = "fast" }})
		settle(t, r)
		away.Store(true)
		say(t, r, newClient("a"), `CREATEANDUPDATE r v=1 data={"x":1} corr=1 ack`)
		synctest.Wait()
	}) // the room ends with the test, which fails when something is left running
}

// What Ready says is answered to anybody on the public port.
func TestReadySaysThatTheStoreFailedAndNotWhatItHolds(t *testing.T) {
	fenced, release := make(chan struct{}), make(chan struct{})
	s := &faulty{Store: store.NewMemory(), onAppend: func([]store.Op) error { return errors.New(`append of "secret/name" in /dir`) }}
	s.onFence = func() error {
		select {
		case fenced <- struct{}{}:
			<-release
			return nil
		case <-t.Context().Done(): // the append that is repeated fails for ever
			return t.Context().Err()
		}
	}
	r := start(t, options{store: s})
	<-fenced
	if err := r.Ready(); err == nil {
		t.Error("Ready before the store is taken over")
	}
	release <- struct{}{}
	say(t, r, newClient("a"), `UPDATE secret/name v=1 data={} corr=1 ack`)
	<-fenced // again, after the failed append
	err := r.Ready()
	if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "dir") || !strings.Contains(err.Error(), "see the log") {
		t.Errorf("Ready = %v, want to be sent to the log", err)
	}
	close(release)
}

func TestALoadThatFailsIsAnswered(t *testing.T) {
	s := &faulty{Store: store.NewMemory(), onLoad: func(ctx context.Context, name string) error {
		if name == "slow" {
			<-ctx.Done()
			return ctx.Err()
		}
		return errors.New("block is corrupt")
	}}
	r := start(t, options{store: s, cfg: func(c *Config) { c.StorageRetrievalTimeout = 10 * time.Millisecond }})
	a := newClient("a")
	for _, line := range []string{
		`READ r`, `HEAD r`, `UPDATE r v=1 data={} corr=1 ack`, `DELETE r`, `SUBSCRIBECREATEANDREAD names=r corr=2`,
	} {
		say(t, r, a, line)
		if _, err := r.Get(t.Context(), "r"); err == nil {
			t.Fatal("the load should have failed")
		}
	}
	say(t, r, a, `READ slow`)
	if _, err := r.Get(t.Context(), "slow"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get of a slow record = %v, want a deadline", err)
	}
	wantHeard(t, "a", a,
		"RECORD_LOAD_ERROR name=r of=READ error",
		"RECORD_LOAD_ERROR name=r of=HEAD error",
		"RECORD_UPDATE_ERROR name=r corr=1 error writeAck",
		"RECORD_DELETE_ERROR name=r",
		"SUBSCRIBECREATEANDREAD names=r corr=2 ack",
		"RECORD_LOAD_ERROR name=r of=SUBSCRIBECREATEANDREAD error",
		"STORAGE_RETRIEVAL_TIMEOUT name=slow of=READ error")
}

func TestRacingWritersMakeOneOrderWithoutGaps(t *testing.T) {
	const writers, each = 16, 200
	r := start(t, options{keep: func(k *KeepConfig) { k.CacheBytes = 0 }}) // evict whatever can go
	watcher := newClient("watcher")
	say(t, r, watcher, `SUBSCRIBECREATEANDREAD names=r corr=0`)
	settle(t, r)
	watcher.heard()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			c := newClient("w")
			for i := range each {
				say(t, r, c, fmt.Sprintf(`PATCH r v=-1 path=w%d data=%d corr=%d ack`, w, i, i))
				say(t, r, c, fmt.Sprintf(`CREATEANDUPDATE own/%d v=-1 data={"i":%d}`, w, i))
			}
		})
	}
	wg.Wait()
	settle(t, r)
	watcher.mu.Lock()
	defer watcher.mu.Unlock()
	if got := len(watcher.got); got != writers*each {
		t.Fatalf("watcher got %d updates, want %d", got, writers*each)
	}
	for i, m := range watcher.got {
		if m.Version != int32(i+1) {
			t.Fatalf("update %d has version %d", i, m.Version)
		}
	}
}

func TestExcludedNamesAreKeptInMemoryOnly(t *testing.T) {
	s := store.NewMemory()
	r := start(t, options{store: s,
		cfg:  func(c *Config) { c.StorageExclusionPrefixes = []string{"tmp/"} },
		keep: func(k *KeepConfig) { k.CacheBytes = 0 }})
	a := newClient("a")
	ask := func(line string) { say(t, r, a, line); settle(t, r) }
	ask(`CREATEANDUPDATE tmp/1 v=-1 data={"x":1} corr=1 ack`)
	ask(`CREATEANDUPDATE kept v=-1 data={"x":1} corr=2 ack`)
	ask(`READ tmp/1`)
	ask(`DELETE tmp/1`)
	ask(`HEAD tmp/1`)
	wantHeard(t, "a", a,
		"WRITE_ACKNOWLEDGEMENT name=tmp/1 corr=1 writeAck",
		"WRITE_ACKNOWLEDGEMENT name=kept corr=2 writeAck",
		`READ_RESPONSE name=tmp/1 v=1 data={"x":1}`,
		"DELETE_SUCCESS name=tmp/1",
		"HEAD_RESPONSE name=tmp/1 v=-1")
	var stored []string
	if err := s.Names(t.Context(), "", func(name string) error { stored = append(stored, name); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(stored) != 1 || stored[0] != "kept" {
		t.Errorf("stored %q, want only kept", stored)
	}
}

func TestTheOperatorWritesInSilence(t *testing.T) {
	r := start(t, options{})
	a := newClient("a")
	say(t, r, a, `SUBSCRIBECREATEANDREAD names=r corr=0`)
	settle(t, r)
	a.heard()
	version, err := r.Set(t.Context(), "r", `{"by":"operator"}`)
	if err != nil || version != 1 {
		t.Fatalf("Set = %d, %v; want 1", version, err)
	}
	if err := r.Restore(t.Context(), store.Record{Name: "old", Version: 41, Data: `[]`}); err != nil {
		t.Fatal(err)
	}
	settle(t, r)
	wantHeard(t, "a", a)
	say(t, r, a, `NOTIFY names=r corr=1`)
	settle(t, r)
	wantHeard(t, "a", a, `UPDATE name=r v=1 data={"by":"operator"}`, "NOTIFY names=r corr=1 ack")
	if got, err := r.Get(t.Context(), "old"); err != nil || got.Version != 41 || got.Data != `[]` {
		t.Errorf("Get = %v, %v", got, err)
	}
	if err := r.Delete(t.Context(), "old"); err != nil {
		t.Errorf("Delete = %v", err)
	}
	if err := r.Delete(t.Context(), "old"); !errors.Is(err, ErrNotFound) {
		t.Errorf("second Delete = %v, want ErrNotFound", err)
	}
	if _, err := r.Get(t.Context(), "old"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get after Delete = %v, want ErrNotFound", err)
	}
	if _, err := r.Set(t.Context(), "r", `{oops`); err == nil {
		t.Error("Set took data that is no JSON")
	}
}

func TestARestoreOverwritesWithoutALook(t *testing.T) {
	var loads atomic.Int64
	s := &faulty{Store: store.NewMemory(), onLoad: func(context.Context, string) error { loads.Add(1); return nil }}
	r := start(t, options{store: s, keep: func(k *KeepConfig) { k.MaxSize = 100 }})
	settle(t, r) // taken over
	if err := s.Store.Append(t.Context(), []store.Op{{Record: store.Record{Name: "r", Version: 9, Data: `{"x":9}`}}}); err != nil {
		t.Fatal(err)
	}
	if err := r.Restore(t.Context(), store.Record{Name: "r", Version: 3, Data: `{"x":3}`}); err != nil || loads.Load() != 0 {
		t.Fatalf("Restore = %v with %d loads, want none", err, loads.Load())
	}
	if got, err := r.Get(t.Context(), "r"); err != nil || got.Version != 3 || got.Data != `{"x":3}` {
		t.Errorf("Get = %+v, %v", got, err)
	}
	// One that is refused leaves nothing behind that could be taken for the record.
	if err := s.Store.Append(t.Context(), []store.Op{{Record: store.Record{Name: "s", Version: 9, Data: `{"x":9}`}}}); err != nil {
		t.Fatal(err)
	}
	if err := r.Restore(t.Context(), store.Record{Name: "s", Version: 3, Data: `"` + strings.Repeat("x", 200) + `"`}); !errors.Is(err, ErrInvalid) {
		t.Errorf("Restore of too much = %v", err)
	}
	if got, err := r.Get(t.Context(), "s"); err != nil || got.Version != 9 {
		t.Errorf("Get = %+v, %v, want the record as it was", got, err)
	}
}

func TestAClientThatLeftIsNotSubscribedLater(t *testing.T) {
	release := make(chan struct{})
	s := &faulty{Store: store.NewMemory(), onAppend: func([]store.Op) error { <-release; return nil }}
	r := start(t, options{store: s})
	a := newClient("a")
	say(t, r, a, `SUBSCRIBECREATEANDREAD names=r corr=0`)
	a.gone.Store(true)
	r.Closed(a)
	close(release)
	settle(t, r)
	if r.subs.Has("r") {
		t.Error("a client that has gone is subscribed")
	}
}

func TestABulkLargerThanABatchIsServedWhole(t *testing.T) {
	const n = 3000
	r := start(t, options{})
	a := newClient("a")
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("bulk/%d", i)
	}
	say(t, r, a, "SUBSCRIBECREATEANDREAD corr=0 names="+strings.Join(names, ","))
	settle(t, r)
	if got := a.count(); got != n+1 {
		t.Errorf("%d messages for %d names, want an ack and one each", got, n)
	}
}
