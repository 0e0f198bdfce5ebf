package perms

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hadal/auth"
	"hadal/protocol"
)

// counted is a report without what the clock says.
func counted(r CoverageReport) map[string]string {
	rules := make(map[string]string)
	for _, rule := range r.Rules {
		if rule.Judged() == 0 {
			continue
		}
		text := fmt.Sprintf("+%d -%d !%d", rule.Allowed, rule.Denied, rule.Failed)
		for _, b := range rule.Branches {
			text += fmt.Sprintf(" %d:%d(%d/%d)", b.Line, b.Column, b.True, b.False)
		}
		rules[rule.Section+" "+rule.Path+" "+rule.Rule] = text
	}
	return rules
}

func expectCounted(t *testing.T, when string, r CoverageReport, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, counted(r), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s: (-want +got)\n%s", when, diff)
	}
}

func TestCoverageCountsRulesAndTheirBranches(t *testing.T) {
	l := live(t, `u/$id: {read: "user.id === $id || oldData.public"}`,
		`e: {publish: "data > 1 && data < 5", subscribe: true}, odd: {publish: "data.x.y"},
		 ref: {publish: "_('friends').ada && _('missing') === null"}`, "",
		shelf{"friends": `{"ada":true}`})
	emit := func(name, data string) {
		l.Door(someone, protocol.TopicEvent, protocol.EventEmit, name, data)
	}
	emit("e", "2")
	expectCounted(t, "off", l.Coverage(), nil)
	l.CountCoverage(true)
	if !l.Coverage().Counting {
		t.Error("it does not say that it counts")
	}
	for _, data := range []string{"0", "2", "3", "7"} {
		emit("e", data)
	}
	emit("odd", "1")
	emit("ref", "1")
	l.Door(someone, protocol.TopicEvent, protocol.EventSubscribe, "e", "")
	l.Door(someone, protocol.TopicEvent, protocol.EventListen, "x", "")
	l.Judge(someone, protocol.RecordRead, "u/someone", "", `{}`, true, nil)
	want := map[string]string{
		"event e publish":   "+2 -2 !0 1:1(2/2) 1:1(3/1) 1:13(2/1)",
		"event e subscribe": "+1 -0 !0",
		"event * listen":    "+1 -0 !0",
		"event odd publish": "+0 -0 !1 1:1(0/0)",
		// It ran twice, but was judged once.
		"event ref publish": "+1 -0 !0 1:1(1/0) 1:1(1/0) 1:21(1/0)",
		"record u/$id read": "+1 -0 !0 1:1(1/0) 1:1(1/0) 1:20(0/0)",
	}
	expectCounted(t, "on", l.Coverage(), want)

	l.CountCoverage(false)
	emit("e", "2")
	expectCounted(t, "off again", l.Coverage(), want)
	l.CountCoverage(true)
	emit("odd", "1")
	want["event odd publish"] = "+0 -0 !2 1:1(0/0)"
	expectCounted(t, "on again", l.Coverage(), want)
	l.ResetCoverage()
	expectCounted(t, "reset", l.Coverage(), nil)
	emit("e", "2")
	expectCounted(t, "on since the reset", l.Coverage(), map[string]string{"event e publish": "+1 -0 !0 1:1(1/0) 1:1(1/0) 1:13(1/0)"})
}

func TestCoverageOutlivesAReloadWhereTheRuleIsTheSame(t *testing.T) {
	with := func(event string) *Rules {
		return load(t, restRecord+"event: {'*': {}, "+event+"}\n"+restRPC+restPresence)
	}
	l := NewLive(with(`same: {publish: "data"}, other: {publish: "data"}, moved: {publish: true}`), nil, nil)
	l.CountCoverage(true)
	emit := func() {
		for _, name := range []string{"same", "other", "moved"} {
			l.Door(someone, protocol.TopicEvent, protocol.EventEmit, name, "1")
		}
	}
	emit()
	l.Reload(with(`new: {publish: true}, other: {publish: "data === 1"}, same: {publish: "data"}, moved: {subscribe: true}`))
	expectCounted(t, "reloaded", l.Coverage(), map[string]string{"event same publish": "+1 -0 !0 1:1(1/0)"})
	emit()
	want := map[string]string{
		"event same publish":  "+2 -0 !0 1:1(2/0)",
		"event other publish": "+1 -0 !0 1:1(1/0)",
	}
	expectCounted(t, "counting goes on", l.Coverage(), want)
	l.CountCoverage(false)
	l.Reload(l.Load())
	emit()
	expectCounted(t, "reloaded when off", l.Coverage(), want)
}

func TestConfigurationSwitchesCoverageWhenItChanges(t *testing.T) {
	with := func(on bool) *Rules {
		r, err := New(Config{Type: "config", Options: Options{Coverage: on, Permissions: restRecord + restEvent + restRPC + restPresence}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	l := NewLive(with(true), nil, nil)
	for _, step := range []struct {
		what string
		do   func()
		want bool
	}{
		{"start", func() {}, true},
		{"operator switches off", func() { l.CountCoverage(false) }, false},
		{"reload without a change", func() { l.Reload(with(true)) }, false},
		{"removed", func() { l.Reload(with(false)) }, false},
		{"set", func() { l.Reload(with(true)) }, true},
		{"removed again", func() { l.Reload(with(false)) }, false},
		{"operator switches on", func() { l.CountCoverage(true) }, true},
		{"reload without the key", func() { l.Reload(with(false)) }, true},
	} {
		step.do()
		if got := l.Coverage().Counting; got != step.want {
			t.Errorf("%s: counting is %v, want %v", step.what, got, step.want)
		}
	}
}

func TestReportsAddUp(t *testing.T) {
	judge := func(rule string, data ...string) CoverageReport {
		r := load(t, restRecord+"event: {'*': {publish: "+rule+", listen: true}}\n"+restRPC+restPresence)
		c := r.StartCoverage()
		if r.StartCoverage() != c {
			t.Fatal("it began again")
		}
		for _, d := range data {
			r.Door(someone, protocol.TopicEvent, protocol.EventEmit, "e", d)
		}
		text, err := json.Marshal(c.Report()) // as they are kept
		if err != nil {
			t.Fatal(err)
		}
		var report CoverageReport
		if err := json.Unmarshal(text, &report); err != nil {
			t.Fatal(err)
		}
		return report
	}
	a, b := judge(`"data && data.x"`, "1", "null"), judge(`"data && data.x"`, `{"x":1}`)
	if taken, all := a.Ways(); taken != 4 || all != 7 {
		t.Errorf("%d of %d ways, want 4 of 7", taken, all)
	}
	if left := a.Add(b); left != 0 {
		t.Errorf("%d rules left out", left)
	}
	expectCounted(t, "both", a, map[string]string{"event * publish": "+1 -2 !0 1:1(1/2) 1:1(2/1) 1:9(1/1)"})
	if taken, all := a.Ways(); taken != 6 || all != 7 {
		t.Errorf("%d of %d ways, want 6 of 7", taken, all)
	}
	if left := a.Add(judge("true", "1")); left != 1 {
		t.Errorf("%d rules left out, want the one that differs", left)
	}
	expectCounted(t, "another", a, map[string]string{"event * publish": "+1 -2 !0 1:1(1/2) 1:1(2/1) 1:9(1/1)"})
}

func TestCoverageLosesNothingToOthers(t *testing.T) {
	l := live(t, "", `e: {publish: "data > 1"}, c: {publish: true}`, "", nil)
	l.CountCoverage(true)
	const clients, each = 8, 500
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := range each {
				l.Door(someone, protocol.TopicEvent, protocol.EventEmit, "e", fmt.Sprint(i%4))
				l.Door(someone, protocol.TopicEvent, protocol.EventEmit, "c", "")
				if i%100 == 0 {
					l.Coverage()
				}
			}
		})
	}
	wg.Wait()
	expectCounted(t, "all", l.Coverage(), map[string]string{
		"event e publish": "+2000 -2000 !0 1:1(2000/2000)",
		"event c publish": "+4000 -0 !0",
	})
}

func TestWithoutRulesNothingIsCovered(t *testing.T) {
	r, err := New(Config{Type: "none", Options: Options{Coverage: true}})
	if err != nil {
		t.Fatal(err)
	}
	l := NewLive(r, nil, nil)
	l.Door(someone, protocol.TopicEvent, protocol.EventEmit, "e", "1")
	if r := l.Coverage(); len(r.Rules) != 0 || r.Rules == nil || !r.Counting {
		t.Errorf("got %+v", r)
	}
}

// The price of coverage, and of a shadow with the same rules and with others: off,
// a rule costs what it did before there were such things.
func BenchmarkWatched(b *testing.B) {
	const rules = "record: {'*': {}}\nevent: {'*': {}, 'c': {publish: true}, 'u/$id': {publish: \"user.id === $id && data !== 7\"}}\n" + restRPC + restPresence
	ada := &auth.User{ID: "ada"}
	for _, way := range []struct {
		name string
		set  func(l *Live)
	}{
		{"off", func(*Live) {}},
		{"coverage", func(l *Live) { l.CountCoverage(true) }},
		{"shadow, same rules", func(l *Live) { l.shadow.Store(newShadow(load(b, rules), l.log)) }},
		{"shadow, other rules", func(l *Live) {
			l.shadow.Store(newShadow(load(b, "record: {'*': {}}\nevent: {'*': {publish: \"data !== 7\"}}\n"+restRPC+restPresence), l.log))
		}},
	} {
		for name, event := range map[string]string{"constant": "c", "rule": "u/ada"} {
			b.Run(way.name+"/"+name, func(b *testing.B) {
				l := NewLive(load(b, rules), nil, nil)
				way.set(l)
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if l.Door(ada, protocol.TopicEvent, protocol.EventEmit, event, "1") != Allow {
							panic("denied")
						}
					}
				})
			})
		}
	}
}
