package admin

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"hadal/auth"
	"hadal/perms"
	"hadal/protocol"
)

const activeRules = `
record: {'*': {}}
event: {'*': {}, 'e/$id': {publish: "user.id === $id"}}
rpc: {'*': {}}
presence: {'*': {}}
`

// emit has ada publish an event.
func (h *harness) emit(name string) perms.Verdict {
	return h.rules.Door(&auth.User{ID: "ada"}, protocol.TopicEvent, protocol.EventEmit, name, "1")
}

func TestCoverageIsSwitchedOverTheAPI(t *testing.T) {
	h := serve(t, Config{})
	c, ctx := h.client(t), t.Context()
	judged := func(want uint64, counting bool) {
		t.Helper()
		r, err := c.Coverage(ctx)
		if err != nil || len(r.Rules) != 1 || r.Rules[0].Judged() != want || r.Counting != counting || r.Format != perms.CoverageFormat {
			t.Errorf("got %+v, %v, want %d, counting %v", r, err, want, counting)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	h.emit("e/ada")
	judged(0, false)
	do(c.CountCoverage(ctx, true))
	h.emit("e/ada")
	h.emit("e/eve")
	judged(2, true)
	do(c.CountCoverage(ctx, false))
	h.emit("e/eve")
	judged(2, false)
	do(c.ResetCoverage(ctx))
	judged(0, false)
	if _, err := c.do(ctx, "PUT", "/rules/coverage", nil, nil); err == nil || !strings.Contains(err.Error(), "count=true") {
		t.Errorf("got %v", err)
	}
}

func TestAShadowIsReportedUntilItsTimeIsOver(t *testing.T) {
	h := serve(t, Config{})
	var last perms.ShadowReport
	emit := sync.OnceFunc(func() { // when it has begun
		h.emit("e/ada")
		h.emit("f")
	})
	err := h.client(t).Shadow(t.Context(), strings.Replace(activeRules, "===", "!==", 1), 5*time.Second, func(r perms.ShadowReport) error {
		last = r
		emit()
		return nil
	})
	if err != nil || !last.End || last.Compared != 2 || last.Different != 1 || len(last.Differences) != 1 {
		t.Fatalf("got %+v, %v", last, err)
	}
	want := perms.Difference{
		Section: "event", Count: 1,
		Active:    perms.Decision{Path: "e/$id", Rule: "publish", Verdict: "allow"},
		Candidate: perms.Decision{Path: "e/$id", Rule: "publish", Verdict: "deny"},
	}
	got := last.Differences[0]
	if got.Section != want.Section || got.Count != want.Count || got.Active != want.Active || got.Candidate != want.Candidate ||
		len(got.Examples) != 1 || got.Examples[0].User != "ada" || got.Examples[0].Action != "EMIT" || got.Examples[0].Name != "e/ada" {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestAShadowEndsWithItsClient(t *testing.T) {
	h := serve(t, Config{})
	c := h.client(t)
	gone := errors.New("gone")
	// A second one is refused until the first one's client is known to be gone.
	err := c.Shadow(t.Context(), activeRules, time.Hour, func(perms.ShadowReport) error {
		err := c.Shadow(t.Context(), activeRules, time.Hour, func(perms.ShadowReport) error { return nil })
		if err == nil || err.Error() != perms.ErrShadowRuns.Error() {
			t.Errorf("a second one: %v", err)
		}
		return gone
	})
	if !errors.Is(err, gone) {
		t.Errorf("got %v, want the error of fn", err)
	}
	for t.Context().Err() == nil {
		err := c.Shadow(t.Context(), activeRules, time.Hour, func(perms.ShadowReport) error { return gone })
		if errors.Is(err, gone) {
			return
		}
	}
}

func TestAShadowEndsWithTheServer(t *testing.T) {
	h := newHarness(t, Config{})
	if err := h.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx) }()
	ended := false
	began := time.Now()
	err := h.client(t).Shadow(t.Context(), activeRules, time.Hour, func(r perms.ShadowReport) error {
		stop()
		ended = r.End
		return nil
	})
	if err != nil || !ended {
		t.Errorf("Shadow = %v, with an end: %v", err, ended)
	}
	if err := <-served; err != nil || time.Since(began) > drainTime {
		t.Errorf("Serve = %v after %v", err, time.Since(began))
	}
}

func TestAWrongCandidateIsRefused(t *testing.T) {
	h := serve(t, Config{})
	c := h.client(t)
	never := func(perms.ShadowReport) error {
		t.Error("it began")
		return nil
	}
	err := c.Shadow(t.Context(), strings.Replace(activeRules, "===", "=", 1), time.Minute, never)
	if err == nil || !strings.Contains(err.Error(), `event: path "e/$id": rule publish: line 1`) {
		t.Errorf("got %v", err)
	}
	if err := c.Shadow(t.Context(), activeRules, 0, never); err == nil || !strings.Contains(err.Error(), "for=10m") {
		t.Errorf("got %v", err)
	}
}
