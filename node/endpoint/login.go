package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"hadal/auth"
	"hadal/protocol"
)

const (
	// loginLimit is how long one login may take; the login timeout may be shorter.
	loginLimit = time.Minute
	// lastWords is how long a client that failed too often has, after the message
	// that says so, before the close: it must see both (spec 15, trap 25).
	lastWords = 10 * time.Millisecond
	// maxUncounted is how many refusals that are no attempts (auth.Verdict.Uncounted) a
	// connection may have; further ones are attempts, or a client that sends the same
	// expired token again and again would never be closed.
	maxUncounted = 10
)

const (
	// maxLoginMessage is the largest message in bytes of a client that has not
	// logged in. Strangers are many, and each may have one half sent.
	maxLoginMessage = 32 << 10
	// maxStrays is how many messages such a client may send beside its challenge,
	// its pings and its logins.
	maxStrays = 100
)

// openAlias is the peer's other name for a client without one (spec 06 §4).
const openAlias = "OPEN"

var errNoUser = errors.New("accepted without a user")

// handleAuth starts a login. Runs on the reader.
func (c *Conn) handleAuth(m *protocol.Message) {
	if m.Action != protocol.AuthRequest || !isJSONContainer(m.Data) {
		c.say(protocol.TopicAuth, protocol.AuthInvalidMessageData)
		c.close(InvalidAuthData)
		return
	}
	if c.unwanted != "" {
		c.turnDown()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), loginLimit)
	if !c.wire.onEnd(cancel) {
		cancel()
		return
	}
	c.login.Add(1)
	c.srv.gate.judging(c.guest, true)
	visit := c.visit
	c.visit = nil // nobody asks for it once the client is in, and it may be large
	attempt := *visit
	attempt.Params = m.Data
	c.srv.crew.do(func() { // awaitVerdict waits for it
		defer c.login.Done()
		defer func() {
			if state(c.state.Load()) != stateOpen {
				c.visit = visit
			}
		}()
		defer cancel()
		defer c.wire.offEnd()
		defer c.recovered("login")
		verdict, err := c.srv.authn.Authenticate(ctx, &attempt)
		c.judge(&attempt, verdict, err)
	})
}

// awaitVerdict waits for the login under way, if there is one. Runs on the reader.
func (c *Conn) awaitVerdict() { c.login.Wait() }

// onEnd has the login's cancel called when the connection ends, and says
// whether it has not ended yet.
func (w *wire) onEnd(cancel func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone.Load() {
		return false
	}
	w.cancel = cancel
	return true
}

// offEnd ends what onEnd began, or the login's context would live as long as the connection.
func (w *wire) offEnd() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancel = nil
}

// judge acts on the verdict. A client that has gone is not logged in any more.
func (c *Conn) judge(a *auth.Attempt, v auth.Verdict, err error) {
	s := c.srv
	if c.Gone() {
		s.logins[loginAbandoned].Add(1)
		return
	}
	if err == nil && v.Opinion == auth.Accepted && v.User == nil {
		err = errNoUser
	}
	switch {
	case errors.Is(err, auth.ErrBusy), errors.Is(err, context.DeadlineExceeded):
		// No word on the password: the client tries again by itself.
		s.logins[loginBusy].Add(1)
		s.log.Debug("login could not wait", "conn", c.id, "remote", c.remote, "err", err)
		c.close(LoginsBusy)
	case err != nil:
		s.logins[loginFailed].Add(1)
		s.log.Error("login could not be judged", "conn", c.id, "remote", c.remote, "err", err)
		c.refuse("")
	case v.Opinion == auth.Accepted:
		c.open(v.User)
	default:
		s.logins[loginRefused].Add(1)
		attrs := []any{"event", "AUTH_UNSUCCESSFUL", "conn", c.id, "remote", c.remote}
		if c.dialect.Options.LogInvalidAuthData {
			attrs = append(attrs, "user", clip(username(a.Params), 128))
		}
		s.log.Info("login refused", attrs...)
		reason := v.Reason
		if v.Opinion != auth.Refused {
			reason = ""
		}
		if v.Uncounted && c.uncounted < maxUncounted {
			c.uncounted++
			c.deny(reason)
			return
		}
		c.refuse(reason)
	}
}

// username is the name in the parameters of a login, for the log; empty if
// there is none.
func username(params string) string {
	var p struct {
		Username string `json:"username"`
	}
	if err := json.Unmarshal([]byte(params), &p); err != nil {
		return "" // an array, or a name that is no text
	}
	return p.Username
}

// open logs the client in.
func (c *Conn) open(u *auth.User) {
	if u.ID == "" || u.ID == openAlias {
		named := *u
		named.ID = auth.Anonymous
		u = &named
	}
	its, ok := c.srv.seats.take(u)
	if !ok {
		c.srv.logins[loginRefused].Add(1)
		c.srv.log.Info("login refused: the user has as many connections as maxConnectionsPerUser allows",
			"event", "AUTH_UNSUCCESSFUL", "conn", c.id, "user", u.ID, "remote", c.remote)
		c.refuse(overbooked)
		return
	}
	if !c.state.CompareAndSwap(uint32(stateChallenged), uint32(stateOpen)) {
		c.srv.seats.leave(u, its)
		c.srv.logins[loginAbandoned].Add(1) // the login timeout was faster
		return
	}
	c.srv.gate.loggedIn(c.guest)
	c.srv.logins[loginAccepted].Add(1)
	c.seat = its
	c.user.Store(u)
	if u.ClientData == "" {
		c.say(protocol.TopicAuth, protocol.AuthAuthSuccessful)
	} else {
		c.Answer(&protocol.Message{
			Topic: protocol.TopicAuth, Action: protocol.AuthAuthSuccessful, Alone: true, Has: protocol.HasData, Data: u.ClientData,
		})
	}
	c.srv.log.Info("client logged in", "event", "AUTH_SUCCESSFUL", "conn", c.id, "user", u.ID, "remote", c.remote)
	c.srv.to.Opened(c)
}

// deny answers a failed login.
func (c *Conn) deny(reason string) {
	c.srv.gate.judging(c.guest, false)
	m := &protocol.Message{Topic: protocol.TopicAuth, Action: protocol.AuthAuthUnsuccessful}
	if reason != "" {
		m.Has, m.Data = protocol.HasData, reason
	}
	c.Answer(m)
}

// refuse answers a failed login and counts it.
func (c *Conn) refuse(reason string) {
	c.deny(reason)
	if c.attempts++; c.attempts < c.dialect.Options.MaxAuthAttempts {
		return
	}
	c.say(protocol.TopicAuth, protocol.AuthTooManyAuthAttempts)
	c.srv.log.Info("too many failed logins", "event", "TOO_MANY_AUTH_ATTEMPTS", "conn", c.id, "remote", c.remote)
	c.lastWords(TooManyAuthAttempts)
}

// lastWords closes the connection once the client has seen what it was told.
func (c *Conn) lastWords(why Reason) {
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.srv.stopping:
	}
	c.close(why)
}

// stray counts a message that no client sends before its login, and ends one
// that sends many: it costs us as much as a client that is of use.
func (c *Conn) stray() {
	if c.strays++; c.strays == maxStrays {
		c.close(Stray)
	}
}

// timeOut ends a connection that did not log in in time. The login under way,
// if there is one, is dropped. It does nothing to a client that has logged in.
func (c *Conn) timeOut() {
	if !c.state.CompareAndSwap(uint32(stateNew), uint32(stateExpired)) &&
		!c.state.CompareAndSwap(uint32(stateChallenged), uint32(stateExpired)) {
		return
	}
	c.say(protocol.TopicConnection, protocol.ConnectionAuthenticationTimeout)
	c.srv.log.Info("client did not log in in time", "event", "AUTHENTICATION_TIMEOUT", "conn", c.id, "remote", c.remote)
	c.close(AuthenticationTimeout)
}

// isJSONContainer says whether s is a JSON object or, as in the peer, an array.
// json.Valid bounds the depth; a login may come from anybody.
func isJSONContainer(s string) bool {
	trimmed := strings.TrimLeft(s, " \t\r\n")
	if trimmed == "" || trimmed[0] != '{' && trimmed[0] != '[' {
		return false
	}
	return json.Valid([]byte(trimmed))
}
