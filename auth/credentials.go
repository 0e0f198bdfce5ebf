package auth

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/tidwall/gjson"
)

// Why the credentials of an upgrade cannot be used (Attempt.Broken).
const (
	// Conflicting: there are several, and they are not the same.
	Conflicting = "CONFLICTING_CREDENTIALS"
	// Malformed: the Authorization header cannot be read.
	Malformed = "MALFORMED_CREDENTIALS"
)

// door decides which credentials all ways in see, before they are asked: what the
// client sends itself goes before what its connection came with. Else a client whose
// token has run out could never log in with a fresh one, because it cannot change the
// headers it connects with.
type door struct {
	Chain
	// secrets are the keys of the parameters that hold a secret, names those that say who
	// somebody is.
	secrets, names []string
}

// NewDoor asks ways in their order, as a Chain, with those credentials alone that count:
// of an attempt that brings a secret in its parameters they see nothing of the upgrade
// (Token, Name, Password). There is one door, in front of all ways in, so that none of
// them lets somebody in by the upgrade whom another one would judge by his login. Like
// what New returns, it may have work for Live.Run, and is a Knower.
func NewDoor(ways ...Authenticator) Authenticator {
	return &door{
		Chain:   ways,
		secrets: append([]string{"password", "token", "jwt", "authKey"}, Chain(ways).keysOfTokens()...),
		names:   []string{"username", "clientID"},
	}
}

// tokenKeeper is an Authenticator that looks for tokens under keys of the parameters that
// are configured.
type tokenKeeper interface {
	keysOfTokens() []string
}

// keysOfTokens implements tokenKeeper: those of all strategies.
func (c Chain) keysOfTokens() (keys []string) {
	for _, a := range c {
		if k, ok := a.(tokenKeeper); ok {
			keys = append(keys, k.keysOfTokens()...)
		}
	}
	return keys
}

// Authenticate implements Authenticator.
func (d *door) Authenticate(ctx context.Context, a *Attempt) (Verdict, error) {
	if a.Token == "" && a.Name == "" && a.Password == "" && a.Broken == "" {
		return d.Chain.Authenticate(ctx, a)
	}
	seen := *a
	switch {
	case has(a.Params, d.secrets):
		seen.Token, seen.Name, seen.Password, seen.Broken = "", "", "", ""
	case a.Broken != "":
		return Verdict{Opinion: Refused, Reason: reason(a.Broken)}, nil
	case a.Token != "" && (a.Name != "" || a.Password != ""):
		return Verdict{Opinion: Refused, Reason: reason(Conflicting)}, nil
	case a.Token == "" && has(a.Params, d.names):
		seen.Name, seen.Password = "", ""
	}
	return d.Chain.Authenticate(ctx, &seen)
}

// strategies are those of the configuration. They find a name and password of the upgrade
// among the parameters, so that none need know where these came from.
type strategies struct{ Chain }

// Authenticate implements Authenticator.
func (s strategies) Authenticate(ctx context.Context, a *Attempt) (Verdict, error) {
	if a.Name == "" && a.Password == "" {
		return s.Chain.Authenticate(ctx, a)
	}
	params, err := withBasic(a.Params, a.Name, a.Password)
	if err != nil {
		return Verdict{}, err
	}
	seen := *a
	seen.Params = params
	return s.Chain.Authenticate(ctx, &seen)
}

// has says whether one of the keys is in the parameters.
func has(params string, keys []string) bool {
	return slices.ContainsFunc(keys, func(key string) bool { return present(param(params, key)) })
}

// present says whether a parameter is there.
func present(v gjson.Result) bool { return v.Exists() && v.Type != gjson.Null }

// withBasic is the parameters with a name and a password in them, so that strategies
// need not know where these came from.
func withBasic(params, name, password string) (string, error) {
	all := make(map[string]json.RawMessage)
	if gjson.Parse(params).IsObject() {
		if err := json.Unmarshal([]byte(params), &all); err != nil {
			return "", errors.New("the parameters of a login are no JSON object") // and are not quoted
		}
	}
	for key, value := range map[string]string{"username": name, "password": password} {
		text, err := appendScalar(nil, value)
		if err != nil {
			return "", err
		}
		all[key] = text
	}
	b, err := appendScalar(nil, all)
	return string(b), err
}
