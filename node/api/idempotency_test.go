package api

import (
	"context"
	"errors"
	"fmt"
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

func keyed(s *Server, user, key, body string) *httptest.ResponseRecorder {
	return post(s, "/api", user, map[string]string{headerKey: key}, strings.NewReader(body))
}

// Two nodes share a vault. A request is carried out by the one that gets it first.
func TestTheSameKeyHasTheSameAnswerOnEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := vault.NewMemory()
		hold := make(chan struct{})
		a, b := &fake{}, &fake{}
		a.receive = func(c *Client, m *protocol.Message) { <-hold; acknowledge(c, m) }
		one, other := newServer(a, v, nil), newServer(b, v, nil)
		first := make(chan *httptest.ResponseRecorder)
		go func() { first <- keyed(one, "ann", "k", writes("r")) }()
		synctest.Wait()
		// While it runs, also elsewhere.
		if w := keyed(other, "ann", "k", writes("r")); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "IDEMPOTENCY_KEY_IN_USE") {
			t.Errorf("while it runs it is answered %d %s", w.Code, w.Body)
		}
		if w := keyed(other, "ann", "k", writes("s")); w.Code != http.StatusUnprocessableEntity {
			t.Errorf("while it runs another body is answered %d %s", w.Code, w.Body)
		}
		close(hold)
		was := <-first
		if was.Code != 200 || was.Header().Get("Idempotent-Replayed") != "" {
			t.Errorf("the first is answered %d %s", was.Code, was.Body)
		}
		for _, s := range []*Server{one, other} {
			w := keyed(s, "ann", "k", writes("r"))
			if w.Code != 200 || w.Body.String() != was.Body.String() || w.Header().Get("Idempotent-Replayed") != "true" {
				t.Errorf("then it is answered %d %s", w.Code, w.Body)
			}
			// Which credentials it comes with does not matter, as long as they are the user's.
			if w := keyed(s, "ann", "k", strings.Replace(writes("r"), "{", `{"token":"x",`, 1)); w.Header().Get("Idempotent-Replayed") != "true" {
				t.Errorf("with another token it is answered %d %s", w.Code, w.Body)
			}
			if w := keyed(s, "ann", "k", writes("s")); w.Code != http.StatusUnprocessableEntity {
				t.Errorf("then another body is answered %d %s", w.Code, w.Body)
			}
		}
		if w := keyed(other, "bob", "k", writes("r")); w.Code != 200 || w.Header().Get("Idempotent-Replayed") != "" {
			t.Errorf("another user is answered %d %s", w.Code, w.Body)
		}
		if got := slices.Concat(a.names(), b.names()); len(got) != 2 {
			t.Errorf("carried out were %q, want one of each user", got)
		}
		time.Sleep(24*time.Hour + time.Second)
		if w := keyed(other, "ann", "k", writes("s")); w.Code != 200 || w.Header().Get("Idempotent-Replayed") != "" {
			t.Errorf("after a day a new request is answered %d %s", w.Code, w.Body)
		}
		one.running.Wait()
		other.running.Wait()
		if n := one.keys.number(); n != 1 {
			t.Errorf("%d keys are counted, want the one that was taken and has not been looked at since", n)
		}
		time.Sleep(48 * time.Hour) // the vault's own timers
	})
}

// A key says nothing of who has it, so that one who has no name must not get another's answer.
func TestCallersWithoutANameHaveKeysOfTheirOwn(t *testing.T) {
	node := &fake{}
	s := newServer(node, vault.NewMemory(), nil)
	remote, role := "", ""
	s.deps.Attempt = func(*http.Request) *auth.Attempt { return &auth.Attempt{RemoteAddr: remote} }
	s.deps.Auth = stranger{&role}
	for _, from := range []struct {
		remote, role string
		replayed     bool
	}{
		{"192.0.2.1", "", false}, {"192.0.2.1", "", true},
		{"192.0.2.2", "", false}, {"192.0.2.2", `{"role":"admin"}`, false},
		{"192.0.2.1", "", true},
	} {
		remote, role = from.remote, from.role
		w := keyed(s, "", "k", writes("r"))
		if got := w.Header().Get("Idempotent-Replayed") != ""; w.Code != 200 || got != from.replayed {
			t.Errorf("%+v: is answered %d %s, again: %t", from, w.Code, w.Body, got)
		}
	}
	s.running.Wait()
	if got := node.names(); len(got) != 3 {
		t.Errorf("carried out were %d requests, want one of each", len(got))
	}
}

func TestKeysAreNotKeptWhereThereIsNoRoom(t *testing.T) {
	node := &fake{}
	s := newServer(node, vault.NewMemory(), nil)
	crowded := false
	s.deps.Crowded = func(context.Context) bool { return crowded }
	if w := keyed(s, "ann", "before", writes("r")); w.Code != 200 {
		t.Errorf("with room it is answered %d %s", w.Code, w.Body)
	}
	crowded = true
	if w := keyed(s, "ann", "now", writes("r")); w.Code != http.StatusTooManyRequests || !strings.Contains(w.Body.String(), "TOO_MANY_IDEMPOTENCY_KEYS") {
		t.Errorf("without room it is answered %d %s", w.Code, w.Body)
	}
	if w := keyed(s, "ann", "before", writes("r")); w.Code != 200 || w.Header().Get("Idempotent-Replayed") != "true" {
		t.Errorf("what was kept is answered %d %s", w.Code, w.Body)
	}
	s.running.Wait()
	if got, kept := node.names(), s.keys.number(); len(got) != 1 || kept != 1 {
		t.Errorf("carried out were %q, %d keys are counted, want one each", got, kept)
	}
}

// stranger lets everybody in without a name, with data.
type stranger struct{ data *string }

func (s stranger) Authenticate(context.Context, *auth.Attempt) (auth.Verdict, error) {
	return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{ID: auth.Anonymous, ServerData: *s.data}}, nil
}

func TestKeysAreForWritesAndBounded(t *testing.T) {
	v := vault.NewMemory()
	node := &fake{}
	s := newServer(node, v, func(c *Config) { c.MaxIdempotencyKeys = 8 })
	const read = `{"body":[{"topic":"presence","action":"query","names":[]}]}`
	node.receive = func(c *Client, m *protocol.Message) {
		if m.Topic == protocol.TopicPresence {
			c.Answer(&protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceQueryResponse, Data: "{}"})
			return
		}
		acknowledge(c, m)
	}
	for range 2 {
		if w := keyed(s, "ann", "k", read); w.Code != 200 || w.Header().Get("Idempotent-Replayed") != "" {
			t.Errorf("what only reads is answered %d %s", w.Code, w.Body)
		}
	}
	for i, want := range []int{200, 200, 429} { // a quarter
		if w := keyed(s, "ann", fmt.Sprint(i), writes("r")); w.Code != want {
			t.Errorf("request %d is answered %d %s, want %d", i, w.Code, w.Body, want)
		}
	}
	if w := keyed(s, "ann", "0", writes("r")); w.Code != 200 || w.Header().Get("Idempotent-Replayed") != "true" {
		t.Errorf("one that was kept is answered %d %s", w.Code, w.Body)
	}
	if w := keyed(s, "bob", "0", writes("r")); w.Code != 200 {
		t.Errorf("another user is answered %d %s", w.Code, w.Body)
	}
	off := newServer(node, v, func(c *Config) { c.IdempotencyTTL = 0 })
	if w := keyed(off, "ann", "0", writes("r")); w.Code != 200 || w.Header().Get("Idempotent-Replayed") != "" {
		t.Errorf("where keys are off it is answered %d %s", w.Code, w.Body)
	}
	for _, bad := range []string{strings.Repeat("k", 256), "a\tb", "ä"} {
		if w := keyed(s, "cid", bad, writes("r")); w.Code != 400 {
			t.Errorf("the key %q is answered %d", bad, w.Code)
		}
	}
	s.running.Wait()
	off.running.Wait()
}

// A request that could not be noted is not carried out, and one that had no seat can be
// sent again at once.
func TestAKeyIsNotedBeforeAnythingIsDone(t *testing.T) {
	node := &fake{}
	s := newServer(node, broken{vault.NewMemory()}, nil)
	if w := keyed(s, "ann", "k", writes("r")); w.Code != 503 || node.names() != nil {
		t.Errorf("is answered %d %s, carried out %q", w.Code, w.Body, node.names())
	}
	if s.keys.number() != 0 {
		t.Error("the key is counted")
	}
	s = newServer(node, vault.NewMemory(), func(c *Config) { c.MaxConcurrent = 1 })
	if s.seats.take("somebody") != seated {
		t.Fatal("there is no seat")
	}
	if w := keyed(s, "ann", "k", writes("r")); w.Code != 503 || node.names() != nil {
		t.Errorf("without a seat it is answered %d %s", w.Code, w.Body)
	}
	s.seats.leave("somebody")
	if w := keyed(s, "ann", "k", writes("r")); w.Code != 200 || w.Header().Get("Idempotent-Replayed") != "" {
		t.Errorf("sent again it is answered %d %s", w.Code, w.Body)
	}
	s.running.Wait()
}

// An answer that is too long to be kept is not given again, and nothing is done again.
func TestAnAnswerThatIsTooLongIsNotKept(t *testing.T) {
	long := `"` + strings.Repeat("x", maxKept) + `"`
	node := &fake{receive: func(c *Client, m *protocol.Message) {
		c.Answer(&protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCResponse, Data: long})
	}}
	s := newServer(node, vault.NewMemory(), nil)
	const call = `{"body":[{"topic":"rpc","action":"make","rpcName":"p"}]}`
	if w := keyed(s, "ann", "k", call); w.Code != 200 || !strings.Contains(w.Body.String(), long) {
		t.Errorf("is answered %d with %d bytes", w.Code, w.Body.Len())
	}
	if w := keyed(s, "ann", "k", call); w.Code != 409 || !strings.Contains(w.Body.String(), "IDEMPOTENT_ANSWER_TOO_LARGE") {
		t.Errorf("then is answered %d %.200s", w.Code, w.Body)
	}
	s.running.Wait()
	if got := node.names(); len(got) != 1 {
		t.Errorf("it was called %d times", len(got))
	}
}

// broken is a vault that takes nothing.
type broken struct{ vault.Vault }

func (broken) Create(context.Context, string, []byte, time.Duration) (uint64, error) {
	return 0, errors.New("the disk is gone")
}
