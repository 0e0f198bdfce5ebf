package register

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"hadal/auth"
	"hadal/auth/web"
)

// expiredReason is what a client is told whose token was right once, as JSON: it asks its
// application for a new one.
const expiredReason = `"TOKEN_EXPIRED"`

// credentials are what a caller came with. At most one of its halves is set.
type credentials struct {
	token    string // one of ours
	id, key  string
	pair     bool // id and key count
	fallible bool // another strategy may know them
}

// credentialsOf finds what is for this room in an attempt: in the parameters, or, where
// these name nobody, in what came with the upgrade.
func credentialsOf(a *auth.Attempt) credentials {
	var named map[string]json.RawMessage
	if json.Unmarshal([]byte(a.Params), &named) != nil {
		return credentials{} // an array, or nothing
	}
	text := func(key string) (s string, ok bool) {
		raw, there := named[key]
		return s, there && json.Unmarshal(raw, &s) == nil
	}
	id, hasID := text("clientID")
	key, hasKey := text("authKey")
	if hasID && hasKey {
		return credentials{id: id, key: key, pair: true}
	}
	if token, ok := text("token"); ok && isToken(token) {
		return credentials{token: token}
	}
	for _, other := range []string{"clientID", "authKey", "token", "username", "password"} {
		if _, ok := named[other]; ok {
			return credentials{}
		}
	}
	switch {
	case a.Token != "" && a.Name != "": // which of them counts is not this room's to say
	case isToken(a.Token):
		return credentials{token: a.Token}
	case a.Token == "" && a.Name != "":
		return credentials{id: a.Name, key: a.Password, pair: true, fallible: true}
	}
	return credentials{}
}

// Authenticate implements auth.Authenticator.
func (r *Room) Authenticate(ctx context.Context, a *auth.Attempt) (auth.Verdict, error) {
	found := credentialsOf(a)
	u, err := r.judge(ctx, found, a.RemoteAddr)
	switch {
	case errors.Is(err, errNobody):
		return auth.Verdict{}, nil
	case errors.Is(err, errUnknown) && found.fallible && r.deps.BasicElsewhere():
		return auth.Verdict{}, nil
	case errors.Is(err, errExpired):
		return auth.Verdict{Opinion: auth.Refused, Reason: expiredReason, Uncounted: true}, nil
	case errors.Is(err, errWrong):
		return auth.Verdict{Opinion: auth.Refused}, nil
	case err != nil:
		return auth.Verdict{}, err
	}
	return auth.Verdict{Opinion: auth.Accepted, User: u}, nil
}

// errNobody is the error of credentials that are none of this room's.
var errNobody = errors.New("there are no credentials for this room")

// judge says who comes with those credentials. The error is errNobody, or as for verify
// and authenticate.
func (r *Room) judge(ctx context.Context, c credentials, remote string) (*auth.User, error) {
	switch {
	case c.token != "":
		id, found, err := r.verify(ctx, c.token, remote)
		r.counts.login(err)
		if err != nil {
			return nil, err
		}
		b := found.Bearer
		return r.userOf(id, b.Login, b.issued(), b.expires()), nil
	case c.pair:
		found, _, err := r.authenticate(ctx, c.id, c.key, remote, c.fallible && r.deps.BasicElsewhere())
		r.counts.login(err)
		if err != nil {
			return nil, err
		}
		return r.userOf(c.id, found.Login, time.Now().Truncate(time.Second), time.Time{}), nil
	}
	return nil, errNobody
}

// Guard looks at what comes with an upgrade before it is accepted: credentials of this
// room that are wrong are answered 401, and false is returned. A token that has expired is
// let through, because a client that cannot change its headers may log in with a fresh
// one. The attempt has no parameters yet.
func (r *Room) Guard(w http.ResponseWriter, req *http.Request, a *auth.Attempt) bool {
	found := credentialsOf(&auth.Attempt{Params: "{}", Token: a.Token, Name: a.Name, Password: a.Password})
	ctx, cancel := context.WithTimeout(req.Context(), callLimit)
	defer cancel()
	_, err := r.judge(ctx, found, a.RemoteAddr)
	switch {
	case err == nil, errors.Is(err, errNobody), errors.Is(err, errExpired):
		return true
	case errors.Is(err, errUnknown) && found.fallible && r.deps.BasicElsewhere():
		return true
	}
	web.Refuse(w, r.problem(req, err))
	return false
}
