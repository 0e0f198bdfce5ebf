package endpoint

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hadal/auth"
	"hadal/protocol"
)

// stranger answers by the text of the login.
var stranger = funcAuth(func(_ context.Context, a *auth.Attempt) (auth.Verdict, error) {
	switch a.Params {
	case `{"u":"ann"}`:
		return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{ID: "ann", ClientData: `{"likes":"red"}`}}, nil
	case `{"u":"nobody"}`, `[]`:
		return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{}}, nil
	case `{"u":"alias"}`:
		return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{ID: "OPEN"}}, nil
	case `{"u":"null"}`:
		return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{ID: "n", ClientData: "null"}}, nil
	case `{"u":"reason"}`:
		return auth.Verdict{Opinion: auth.Refused, Reason: `{"error":"no"}`}, nil
	case `{"u":"none"}`:
		return auth.Verdict{}, nil
	case `{"u":"error"}`:
		return auth.Verdict{Opinion: auth.Accepted}, errors.New("the store is down")
	case `{"u":"nil"}`:
		return auth.Verdict{Opinion: auth.Accepted}, nil
	case `{"u":"panic"}`:
		panic("a bug")
	}
	return auth.Verdict{Opinion: auth.Refused}, nil
})

func TestQuarantineAnswersAsTheTableSays(t *testing.T) {
	const (
		invalidConnection = "CONNECTION.INVALID_MESSAGE"
		invalidAuth       = "AUTH.INVALID_MESSAGE"
		invalidData       = "AUTH.INVALID_MESSAGE_DATA"
		unknownTopic      = "PARSER.UNKNOWN_TOPIC"
		pong              = "CONNECTION.PONG"
		stays, closes     = false, true
	)
	msg := func(topic protocol.Topic, action protocol.Action) []byte {
		return protocol.Append(nil, &protocol.Message{Topic: topic, Action: action})
	}
	auth := func(data string) []byte { return protocol.Append(nil, request(data)) }
	ask := protocol.Append(nil, emit("a", "1"))

	for _, tc := range []struct {
		name  string
		state state
		in    []byte
		want  string // empty: no answer
		ends  bool
	}{
		{"new: challenge", stateNew, protocol.Append(nil, challenge()), "CONNECTION.ACCEPT", stays},
		{"new: challenge with nothing in it", stateNew, msg(protocol.TopicConnection, protocol.ConnectionChallenge), "CONNECTION.ACCEPT", stays},
		{"new: ping", stateNew, msg(protocol.TopicConnection, protocol.ConnectionPing), "", stays},
		{"new: other connection action", stateNew, msg(protocol.TopicConnection, protocol.ConnectionPong), "", stays},
		{"new: auth", stateNew, auth("{}"), invalidConnection, stays},
		{"new: event", stateNew, ask, invalidConnection, stays},
		{"new: empty frame", stateNew, nil, invalidConnection, stays},
		{"new: undecodable", stateNew, []byte{0xff}, invalidConnection, stays},
		{"new: topic without codec", stateNew, []byte{6, 0x10, 99, 0x1a, 2, 8, 1}, invalidConnection, stays},

		{"challenged: ping", stateChallenged, msg(protocol.TopicConnection, protocol.ConnectionPing), "", stays},
		{"challenged: challenge again", stateChallenged, protocol.Append(nil, challenge()), invalidAuth, stays},
		{"challenged: event", stateChallenged, ask, invalidAuth, stays},
		{"challenged: undecodable", stateChallenged, []byte{3, 1}, invalidAuth, stays},
		{"challenged: other auth action", stateChallenged, msg(protocol.TopicAuth, protocol.AuthAuthSuccessful), invalidData, closes},
		{"challenged: no data", stateChallenged, msg(protocol.TopicAuth, protocol.AuthRequest), invalidData, closes},
		{"challenged: not JSON", stateChallenged, auth(`{"u":`), invalidData, closes},
		{"challenged: null", stateChallenged, auth("null"), invalidData, closes},
		{"challenged: string", stateChallenged, auth(`"{}"`), invalidData, closes},
		{"challenged: number", stateChallenged, auth("1"), invalidData, closes},
		{"challenged: too deep", stateChallenged, auth(strings.Repeat("[", 12_000) + strings.Repeat("]", 12_000)), invalidData, closes},
		{"challenged: array", stateChallenged, auth("[]"), "AUTH.AUTH_SUCCESSFUL", stays},
		{"challenged: object with client data", stateChallenged, auth(`{"u":"ann"}`), `AUTH.AUTH_SUCCESSFUL {"likes":"red"}`, stays},
		{"challenged: null client data", stateChallenged, auth(`{"u":"null"}`), `AUTH.AUTH_SUCCESSFUL null`, stays},
		{"challenged: refused", stateChallenged, auth(`{"u":"x"}`), "AUTH.AUTH_UNSUCCESSFUL", stays},
		{"challenged: refused with a reason", stateChallenged, auth(`{"u":"reason"}`), `AUTH.AUTH_UNSUCCESSFUL {"error":"no"}`, stays},
		{"challenged: no opinion", stateChallenged, auth(`{"u":"none"}`), "AUTH.AUTH_UNSUCCESSFUL", stays},
		{"challenged: strategy fails", stateChallenged, auth(`{"u":"error"}`), "AUTH.AUTH_UNSUCCESSFUL", stays},
		{"challenged: accepted without user", stateChallenged, auth(`{"u":"nil"}`), "AUTH.AUTH_UNSUCCESSFUL", stays},
		{"challenged: strategy panics", stateChallenged, auth(`{"u":"panic"}`), "", closes},

		{"open: ping", stateOpen, msg(protocol.TopicConnection, protocol.ConnectionPing), pong, stays},
		{"open: challenge", stateOpen, protocol.Append(nil, challenge()), unknownTopic, stays},
		{"open: login again", stateOpen, auth(`{"u":"ann"}`), unknownTopic, stays},
		{"open: parser", stateOpen, msg(protocol.TopicParser, protocol.ParserError), unknownTopic, stays},
		{"open: undecodable", stateOpen, []byte{0}, unknownTopic, stays},
		{"open: event", stateOpen, ask, "EVENT.EMIT 1", stays},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ts := serve(t, testConfig(), stranger, &funcReceiver{
				receive: func(c *Conn, m *protocol.Message) { c.Answer(m) },
			})
			c := ts.dial()
			if tc.state >= stateChallenged {
				c.send(challenge())
				c.want("CONNECTION.ACCEPT")
			}
			if tc.state == stateOpen {
				c.send(request(`{"u":"ann"}`))
				c.want(`AUTH.AUTH_SUCCESSFUL {"likes":"red"}`)
			}
			c.sendBytes(tc.in)
			if tc.want != "" {
				c.want(tc.want)
			}
			if tc.ends {
				if _, err := c.next(); err == nil {
					t.Error("the connection is still open")
				}
				return
			}
			// Nothing else came, and the connection lives: a frame that is no
			// message is answered next, by the state that was reached.
			c.sendBytes([]byte{0xff})
			switch {
			case tc.state == stateOpen || strings.HasPrefix(tc.want, "AUTH.AUTH_SUCCESSFUL"):
				c.want(unknownTopic)
			case tc.state == stateChallenged || tc.want == "CONNECTION.ACCEPT":
				c.want(invalidAuth)
			default:
				c.want(invalidConnection)
			}
		})
	}
}

func TestUnknownTopicNamesTheAction(t *testing.T) {
	c := serve(t, testConfig(), anybody, &funcReceiver{}).login()
	c.send(challenge())
	if m := c.want("PARSER.UNKNOWN_TOPIC"); m.OriginalAction != protocol.ConnectionChallenge {
		t.Errorf("originalAction = %d, want %d", m.OriginalAction, protocol.ConnectionChallenge)
	}
}

func TestTheLastFailedLoginClosesAfterBothMessages(t *testing.T) {
	cfg := testConfig()
	cfg.WebSocket.MaxAuthAttempts = 3
	ts := serve(t, cfg, stranger, &funcReceiver{})
	c := ts.dial()
	c.send(challenge())
	c.want("CONNECTION.ACCEPT")
	for range 3 { // all at once: one after another they are judged
		c.send(request(`{"u":"x"}`))
	}
	c.send(request(`{"u":"ann"}`)) // too late
	c.want("AUTH.AUTH_UNSUCCESSFUL")
	c.want("AUTH.AUTH_UNSUCCESSFUL")
	c.want("AUTH.AUTH_UNSUCCESSFUL")
	c.want("AUTH.TOO_MANY_AUTH_ATTEMPTS")
	c.wantClose(1008)
	eventually(t, "the connection is gone", func() bool { return ts.Stats().Open == 0 })
	st := ts.Stats()
	if st.Logins["refused"] != 3 || st.Logins["accepted"] != 0 {
		t.Errorf("logins = %v, want 3 refused", st.Logins)
	}
	if got := st.Closed["too many authentication attempts"]; got != 1 {
		t.Errorf("closed for too many attempts = %d, want 1", got)
	}
	for _, event := range []string{"INCOMING_CONNECTION", "AUTH_UNSUCCESSFUL", "TOO_MANY_AUTH_ATTEMPTS", "CLIENT_DISCONNECTED"} {
		if !strings.Contains(ts.logs.String(), "event="+event) {
			t.Errorf("the log lacks %s", event)
		}
	}
}

func TestLoginsRunOneAtATimeAndOnlyOneSucceeds(t *testing.T) {
	var running, most, opened atomic.Int32
	slow := funcAuth(func(context.Context, *auth.Attempt) (auth.Verdict, error) {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		for range 10_000 {
			runtime.Gosched() // let a second one overlap, if it could
		}
		return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{ID: "u"}}, nil
	})
	c := serve(t, testConfig(), slow, &funcReceiver{opened: func(*Conn) { opened.Add(1) }}).dial()
	c.send(challenge())
	for range 3 {
		c.send(request(`{}`))
	}
	c.want("CONNECTION.ACCEPT")
	c.want("AUTH.AUTH_SUCCESSFUL")
	c.want("PARSER.UNKNOWN_TOPIC")
	c.want("PARSER.UNKNOWN_TOPIC")
	if most.Load() != 1 || opened.Load() != 1 {
		t.Errorf("at most %d logins at once and %d opened, want 1 and 1", most.Load(), opened.Load())
	}
}

func TestAClientThatLeavesDuringItsLoginIsNotLoggedIn(t *testing.T) {
	started := make(chan struct{})
	slow := waitingAuth(started) // the close ends it
	var opened, closed atomic.Int32
	ts := serve(t, testConfig(), slow, &funcReceiver{
		opened: func(*Conn) { opened.Add(1) }, closed: func(*Conn) { closed.Add(1) },
	})
	c := ts.dial()
	c.send(challenge())
	c.send(request(`{}`))
	await(t, "the login runs", started)
	if err := c.ws.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection is gone", func() bool { return ts.Stats().Open == 0 })
	if opened.Load() != 0 || closed.Load() != 0 {
		t.Errorf("opened %d, closed %d, want neither", opened.Load(), closed.Load())
	}
	if got := ts.Stats().Logins["abandoned"]; got != 1 {
		t.Errorf("abandoned logins = %d, want 1", got)
	}
}

func TestLoginTimeoutStandsUntilSuccess(t *testing.T) {
	cfg := testConfig()
	cfg.WebSocket.UnauthenticatedClientTimeout = 3 * time.Second // enough to log in on a busy machine
	ts := serve(t, cfg, stranger, &funcReceiver{})
	in := ts.dial()
	in.send(challenge())
	in.want("CONNECTION.ACCEPT")
	in.send(request(`{"u":"ann"}`))
	in.want(`AUTH.AUTH_SUCCESSFUL {"likes":"red"}`)

	failed, mute := ts.dial(), ts.dial()
	failed.send(challenge())
	failed.want("CONNECTION.ACCEPT")
	failed.send(request(`{"u":"x"}`)) // a verdict, but not a good one: the clock runs on
	failed.want("AUTH.AUTH_UNSUCCESSFUL")
	failed.want("CONNECTION.AUTHENTICATION_TIMEOUT")
	failed.wantClose(1008)

	mute.want("CONNECTION.AUTHENTICATION_TIMEOUT")
	mute.wantClose(1008)

	in.send(ping())
	in.want("CONNECTION.PONG")
	if got := ts.Stats().Closed["authentication timeout"]; got != 2 {
		t.Errorf("closed for the login timeout = %d, want 2", got)
	}
}

func TestALoginUnderWayEndsWithTheLoginTimeout(t *testing.T) {
	cfg := testConfig()
	cfg.WebSocket.UnauthenticatedClientTimeout = 3 * time.Second // enough to log in on a busy machine
	forever := funcAuth(func(ctx context.Context, _ *auth.Attempt) (auth.Verdict, error) {
		<-ctx.Done()
		return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{ID: "u"}}, nil
	})
	c := serve(t, cfg, forever, &funcReceiver{opened: func(*Conn) { t.Error("opened after the timeout") }}).dial()
	c.send(challenge())
	c.want("CONNECTION.ACCEPT")
	c.send(request(`{}`))
	c.want("CONNECTION.AUTHENTICATION_TIMEOUT")
	c.wantClose(1008)
}

func TestAClientWithoutANameIsTheOneAnonymousUser(t *testing.T) {
	for _, data := range []string{`{"u":"nobody"}`, `{"u":"alias"}`, `[]`} {
		users := make(chan string, 1)
		ts := serve(t, testConfig(), stranger, &funcReceiver{opened: func(c *Conn) { users <- c.User().ID }})
		c := ts.dial()
		c.send(challenge())
		c.send(request(data))
		if got := await(t, "opened", users); got != auth.Anonymous {
			t.Errorf("%s: user = %q, want %q", data, got, auth.Anonymous)
		}
	}
}

func TestTheLogHoldsNamesOfRefusedLoginsOnlyOnRequestAndNeverSecrets(t *testing.T) {
	for _, asked := range []bool{false, true} {
		cfg := testConfig()
		cfg.WebSocket.LogInvalidAuthData = asked
		ts := serve(t, cfg, stranger, &funcReceiver{})
		c := ts.dial()
		c.send(challenge())
		c.want("CONNECTION.ACCEPT")
		c.send(request(`{"username":"mallory","password":"hunter2"}`))
		c.want("AUTH.AUTH_UNSUCCESSFUL")
		log := ts.logs.String()
		if got := strings.Contains(log, "mallory"); got != asked {
			t.Errorf("logInvalidAuthData %v: the log names the user: %v", asked, got)
		}
		if strings.Contains(log, "hunter2") {
			t.Error("the log holds a password")
		}
	}
}

func TestOldAndUnknownClientsGetTheOlderForm(t *testing.T) {
	for _, tc := range []struct {
		sdk, version string
		want         protocol.Form
	}{
		{"javascript", "7.1.0", protocol.FormBinary},
		{"javascript", "7.2", protocol.FormBinary},
		{"javascript", "7.10.3-beta.1", protocol.FormBinary},
		{"javascript", "10.0.0", protocol.FormBinary},
		{"javascript", "7.0.5", protocol.FormBinary70},
		{"javascript", "6.9.9", protocol.FormBinary70},
		{"javascript", "7", protocol.FormBinary70},
		{"javascript", "", protocol.FormBinary70},
		{"javascript", "x.y", protocol.FormBinary70},
		{"", "7.1.0", protocol.FormBinary70},
		{"java", "9.0.0", protocol.FormBinary70},
	} {
		if got := formFor(tc.sdk, tc.version); got != tc.want {
			t.Errorf("formFor(%q, %q) = %d, want %d", tc.sdk, tc.version, got, tc.want)
		}
	}
}

func TestAVerdictAfterTheLoginTimeoutIsDropped(t *testing.T) {
	ts := serve(t, testConfig(), anybody, &funcReceiver{opened: func(*Conn) { t.Error("opened after the timeout") }})
	conns, _ := sinkConns(t, ts, 1)
	c := conns[0]
	c.user.Store(nil)
	c.state.Store(uint32(stateExpired)) // the sweep was faster, but has not closed yet
	c.open(&auth.User{ID: "u"})
	if c.User() != nil {
		t.Error("the client is logged in")
	}
}
