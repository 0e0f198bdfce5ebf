package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"hadal/auth"
)

var _ auth.Authenticator = (*Room)(nil)

// Authenticate lets in who has a token of this cluster: in the parameters as token, else
// one that came with the upgrade. It has no opinion of others, so it stands before the
// configured strategies. A token is for its user alone: parameters that name another one
// are refused. An error that is auth.ErrBusy says that the client should try again.
func (r *Room) Authenticate(ctx context.Context, a *auth.Attempt) (auth.Verdict, error) {
	m := r.maker.Load()
	if !m.cfg.Enabled() {
		return auth.Verdict{}, nil
	}
	token, name := credentials(a)
	if token == "" {
		return auth.Verdict{}, nil
	}
	c, err := r.check(ctx, m, token)
	switch {
	case errors.Is(err, errForeign):
		return auth.Verdict{}, nil
	case err == nil && name != "" && name != c.Subject:
		return refusal(ErrInvalid), nil
	case errors.Is(err, ErrInvalid), errors.Is(err, ErrExpired), errors.Is(err, ErrRevoked):
		return refusal(err), nil
	case err != nil:
		return auth.Verdict{}, err
	}
	return auth.Verdict{Opinion: auth.Accepted, User: c.user()}, nil
}

// refusal is the verdict on a token that is not taken. One that was good once is no
// attempt at guessing.
func refusal(err error) auth.Verdict {
	return auth.Verdict{Opinion: auth.Refused, Reason: jsonText(err.Error()), Uncounted: !errors.Is(err, ErrInvalid)}
}

// jsonText is a plain text as JSON.
func jsonText(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always marshals
	}
	return string(b)
}

// credentials are the token of an attempt and the user name beside it; empty without.
func credentials(a *auth.Attempt) (token, name string) {
	var params map[string]json.RawMessage // the last of equal keys counts
	if json.Unmarshal([]byte(a.Params), &params) != nil {
		params = nil // an array, which has none
	}
	text := func(key string) (s string) {
		if json.Unmarshal(params[key], &s) != nil {
			return "" // missing, or no text
		}
		return s
	}
	if token = text("token"); token == "" {
		token = a.Token
	}
	return token, text("username")
}

// check says what a token says, if it is good now, also by the revocations; for those the
// node may have to catch up first.
func (r *Room) check(ctx context.Context, m *maker, token string) (*claims, error) {
	c, err := m.open(token, time.Now())
	if err != nil {
		return c, err
	}
	if err := r.caughtUp(ctx); err != nil {
		return nil, err
	}
	if r.revoked.void(c.Subject, c.user().Session) {
		return c, ErrRevoked
	}
	return c, nil
}

// caughtUp waits until this node knows what is revoked, for a moment.
func (r *Room) caughtUp(ctx context.Context) error {
	if r.touch.Await(ctx, catchUpWait) {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: this node does not know which tokens are revoked", auth.ErrBusy)
}
