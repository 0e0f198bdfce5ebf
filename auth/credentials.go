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

// door decides which credentials the strategies see, before they are asked: what the
// client sends itself goes before what its connection came with. Else a client whose
// token has run out could never log in with a fresh one, because it cannot change the
// headers it connects with.
type door struct {
	Chain
	// secrets are the keys of the parameters that hold a secret, names those that say who
	// somebody is.
	secrets, names []string
}

// newDoor is the door in front of a chain.
func newDoor(chain Chain) *door {
	d := &door{Chain: chain, secrets: []string{"password", "token", "jwt", "authKey"}, names: []string{"username", "clientID"}}
	for _, a := range chain {
		if j, ok := a.(*jwtStrategy); ok {
			d.secrets = append(d.secrets, j.tokenKeys...)
		}
	}
	return d
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
	case a.Token != "":
	case has(a.Params, d.names):
		seen.Name, seen.Password = "", ""
	default:
		params, err := withBasic(a.Params, a.Name, a.Password)
		if err != nil {
			return Verdict{}, err
		}
		seen.Params = params
	}
	return d.Chain.Authenticate(ctx, &seen)
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
