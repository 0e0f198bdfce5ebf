package perms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hadal/auth"
	"hadal/protocol"
)

// rulesOf has rules for some paths of two sections, and of the others none.
func rulesOf(t testing.TB, record, event string) *Rules {
	t.Helper()
	return load(t, "record: {'*': {}, "+record+"}\nevent: {'*': {}, "+event+"}\n"+restRPC+restPresence)
}

// kindsOf are the differences of a report, each as `section path rule verdict → path rule verdict: count`.
func kindsOf(list []Difference) []string {
	var kinds []string
	for _, d := range list {
		a, c := d.Active, d.Candidate
		kinds = append(kinds, fmt.Sprintf("%s %s %s %s → %s %s %s: %d", d.Section, a.Path, a.Rule, a.Verdict, c.Path, c.Rule, c.Verdict, d.Count))
	}
	return kinds
}

func expectKinds(t *testing.T, what string, got []Difference, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, kindsOf(got), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s: (-want +got)\n%s", what, diff)
	}
}

// watch has a candidate judge what happens in do, in a bubble.
func watchAll(t *testing.T, l *Live, candidate *Rules, do func()) (r ShadowReport) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(context.Background())
		done := make(chan error)
		go func() {
			done <- l.Shadow(ctx, candidate, time.Hour, func(now ShadowReport) error {
				r = now
				return nil
			})
		}()
		synctest.Wait()
		do()
		end()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestShadowFindsWhatWouldDiffer(t *testing.T) {
	l := NewLive(rulesOf(t, `r/$id: {read: true, write: "data.v > oldData.v", create: true}, gone: {delete: true}`,
		`same: {publish: "data > 1"}, open: {publish: true}, odd: {publish: false}, $x: {publish: "data === 0"}`), nil, nil)
	candidate := rulesOf(t, `r/$id: {read: "oldData.public", write: "data.v >= oldData.v", create: "$id !== 'x'"}`,
		`same: {publish: "data > 1"}, open: {publish: "user.id !== 'eve'"}, odd: {publish: "data.x.y"}, a*: {publish: true}, listened: {listen: true}`)
	eve := &auth.User{ID: "eve"}
	r := watchAll(t, l, candidate, func() {
		emit := func(u *auth.User, name, data string) Verdict {
			return l.Door(u, protocol.TopicEvent, protocol.EventEmit, name, data)
		}
		emit(eve, "same", "1")
		emit(someone, "open", "1")
		for range 7 {
			if v := emit(eve, "open", "1"); v != Allow {
				t.Errorf("the candidate decided: %v", v)
			}
		}
		emit(someone, "odd", "1")
		emit(someone, "any", "1")
		emit(someone, "other", "0")
		l.Door(someone, protocol.TopicEvent, protocol.EventListen, "listened", "")
		l.Door(someone, protocol.TopicRecord, protocol.RecordRead, "r/1", "") // compared by its owner
		l.Judge(someone, protocol.RecordRead, "r/1", "", `{"public":true}`, true, nil)
		l.Judge(someone, protocol.RecordRead, "r/1", "", `{}`, true, nil)
		l.Judge(someone, protocol.RecordUpdate, "r/1", `{"v":1}`, `{"v":1}`, true, nil)
		l.Judge(someone, protocol.RecordUpdate, "r/1", `{"v":2}`, `{"v":1}`, true, nil)
		l.Judge(someone, protocol.RecordCreateAndUpdate, "r/x", `{"v":2}`, `{"v":1}`, true, nil)
		l.Judge(someone, protocol.RecordDelete, "gone", "", `{}`, true, nil)
		l.Judge(someone, protocol.RecordUpdate, "hadal/x", "1", "", false, nil)
	})
	expectKinds(t, "differences", r.Differences,
		"event open publish allow → open publish deny: 7",
		"event  listen deny → listened listen allow: 1",
		"event $x publish allow →  publish deny: 1",
		"event $x publish deny → a* publish allow: 1",
		"event odd publish deny → odd publish fail: 1",
		"record gone delete allow →  delete deny: 1",
		"record r/$id create allow → r/$id create deny: 1",
		"record r/$id read allow → r/$id read deny: 1",
		"record r/$id write deny → r/$id write allow: 1",
	)
	expectKinds(t, "unknown", r.Unknown)
	if r.Different != 15 || r.Dropped != 0 || r.Compared != 20 {
		t.Errorf("different %d, dropped %d, compared %d", r.Different, r.Dropped, r.Compared)
	}
	first := r.Differences[0]
	if len(first.Examples) != maxExamples || first.Examples[0].User != "eve" || first.Examples[0].Action != "EMIT" || first.Examples[0].Name != "open" {
		t.Errorf("examples: %+v", first.Examples)
	}
	if l.shadow.Load() != nil {
		t.Error("it goes on")
	}
}

func TestShadowFetchesNothing(t *testing.T) {
	l := NewLive(rulesOf(t, `r: {read: "_('a') !== null", write: true}, s: {read: true}`, `e: {publish: "_('a').ok"}, n: {publish: false}`),
		shelf{"a": `{"ok":true}`, "b": `{"ok":true}`}, nil)
	candidate := rulesOf(t, `r: {read: "_('a').ok === 1", write: "_('b').ok"}, s: {read: "oldData.ok"}`, `e: {publish: "_('a').ok && _(data).ok"}, n: {publish: "_('b').ok"}`)
	r := watchAll(t, l, candidate, func() {
		l.Door(someone, protocol.TopicEvent, protocol.EventEmit, "e", `"a"`) // both from what was read
		l.Door(someone, protocol.TopicEvent, protocol.EventEmit, "e", `"b"`)
		l.Door(someone, protocol.TopicEvent, protocol.EventEmit, "n", "")
		if _, wanted := l.Judge(someone, protocol.RecordRead, "r", "", `{}`, true, nil); len(wanted) != 1 {
			t.Errorf("wanted %q", wanted)
		}
		l.Judge(someone, protocol.RecordRead, "r", "", `{}`, true, shelf{"a": `{"ok":true}`}.known)
		l.Judge(someone, protocol.RecordUpdate, "r", "1", `{}`, true, nil)
		l.Judge(someone, protocol.RecordSubscribe, "s", "", "", false, nil) // nobody looked at the record
		l.Judge(someone, protocol.RecordSubscribe, "s", "", `{"ok":true}`, true, nil)
		l.Door(someone, protocol.TopicRecord, protocol.RecordDelete, "r", "")
	})
	expectKinds(t, "unknown", r.Unknown,
		"event e publish allow → e publish unknown: 1",
		"event n publish deny → n publish unknown: 1",
		"record r write allow → r write unknown: 1",
		"record s read allow → s read unknown: 1",
	)
	expectKinds(t, "differences", r.Differences, "record r read allow → r read deny: 1")
}

func TestShadowOfRulesBesideNone(t *testing.T) {
	none, err := New(Config{Type: "none"})
	if err != nil {
		t.Fatal(err)
	}
	l := NewLive(none, nil, nil)
	r := watchAll(t, l, rulesOf(t, "", `e: {publish: true}`), func() {
		l.Door(someone, protocol.TopicEvent, protocol.EventEmit, "e", "")
		l.Door(someone, protocol.TopicEvent, protocol.EventEmit, "f", "")
		l.Judge(someone, protocol.RecordUpdate, "x", "1", "", false, nil)
		l.Door(someone, protocol.TopicPresence, protocol.PresenceQueryAll, "", "")
	})
	expectKinds(t, "differences", r.Differences,
		"event  publish allow →  publish deny: 1",
		"presence  allow allow →  allow deny: 1",
		"record  write allow →  write deny: 1",
	)
}

func TestShadowReportsWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLive(rulesOf(t, "", "e: {publish: true}"), nil, nil)
		ctx, end := context.WithTimeout(context.Background(), 3500*time.Millisecond)
		defer end()
		reports := make(chan ShadowReport)
		done := make(chan error)
		go func() {
			done <- l.Shadow(ctx, rulesOf(t, "", ""), time.Second, func(r ShadowReport) error {
				reports <- r
				return nil
			})
		}()
		for _, want := range []float64{0, 1, 2, 3, 3.5} {
			l.Door(someone, protocol.TopicEvent, protocol.EventEmit, "e", "")
			if r := <-reports; r.Seconds != want {
				t.Errorf("after %v s: %+v", want, r)
			}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestThereIsOneShadowAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLive(rulesOf(t, "", ""), nil, nil)
		gone := errors.New("gone")
		answers := make(chan error)
		done := make(chan error)
		go func() {
			done <- l.Shadow(context.Background(), rulesOf(t, "", ""), time.Second, func(ShadowReport) error { return <-answers })
		}()
		answers <- nil
		if err := l.Shadow(context.Background(), rulesOf(t, "", ""), time.Second, nil); !errors.Is(err, ErrShadowRuns) {
			t.Errorf("got %v, want ErrShadowRuns", err)
		}
		answers <- gone
		if err := <-done; !errors.Is(err, gone) {
			t.Errorf("got %v, want the error of fn", err)
		}
		if l.shadow.Load() != nil {
			t.Error("it goes on")
		}
	})
}

func TestShadowKeepsToItsTime(t *testing.T) {
	var b budget
	now := 10 * time.Second
	for range 10 {
		if !b.left(now) {
			t.Fatal("nothing left of the first burst")
		}
		b.spend(now, 11*time.Millisecond)
	}
	if b.left(now) {
		t.Error("more than a burst")
	}
	if b.left(now+99*time.Millisecond) || !b.left(now+101*time.Millisecond) {
		t.Error("what was too much is not made up for")
	}

	l := NewLive(rulesOf(t, "", "e: {publish: true}"), nil, nil)
	r := watchAll(t, l, rulesOf(t, "", ""), func() {
		l.shadow.Load().budget.spend(0, time.Minute)
		l.Door(someone, protocol.TopicEvent, protocol.EventEmit, "e", "")
	})
	if r.Dropped != 1 || r.Compared != 0 || len(r.Differences) != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestShadowKeepsLittleAndNoData(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l := NewLive(rulesOf(t, "", "'e*': {publish: true}"), nil, logger)
	long := "e" + strings.Repeat("ü", maxExampleName)
	r := watchAll(t, l, rulesOf(t, "", `'e*': {publish: "data.x.y"}`), func() {
		l.Door(someone, protocol.TopicEvent, protocol.EventEmit, long, `"secret"`)
		l.Door(someone, protocol.TopicEvent, protocol.EventEmit, "e\xff", `"secret"`)
	})
	if got := len(r.Differences[0].Examples[1].Name); got > maxExampleName+3 {
		t.Errorf("a name of %d bytes is kept", got)
	}
	if strings.Contains(fmt.Sprint(r), "secret") || strings.Contains(log.String(), "secret") {
		t.Error("data is kept")
	}
	if !strings.Contains(log.String(), "candidate rules would decide otherwise") {
		t.Errorf("the log has only %s", log.String())
	}
	s := newShadow(nil, l.log)
	for i := range maxKinds + 3 {
		s.note(&question{user: someone}, 0, secEvent, Decision{Path: fmt.Sprint(i)}, Decision{})
	}
	if r := s.report(); len(r.Differences) != maxKinds || r.Other != 3 || r.Different != maxKinds+3 {
		t.Errorf("%d kinds, %d others, %d in all", len(r.Differences), r.Other, r.Different)
	}
}
