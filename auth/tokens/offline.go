package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ErrOff says that a configuration has no keys.
var ErrOff = errors.New("tokens.signingKeys is empty: add a key, or name the configuration that has one")

// OfflineLife is the longest life of a token that is made without a node. Nobody notes such
// a token where revocations would learn how long it lives, so each of them is remembered
// for so long at the least.
const OfflineLife = 24 * time.Hour

// Make makes an access token by a configuration, without a node and so without a refresh
// token. request is the body of POST /auth/token. A life of more than OfflineLife that it
// asks for is an error; one that it does not ask for is cut there.
func Make(cfg Config, issuer string, request []byte) (token string, expires time.Time, err error) {
	m, err := newMaker(cfg, issuer)
	switch {
	case err != nil:
		return "", expires, err
	case !cfg.Enabled():
		return "", expires, ErrOff
	}
	var q mintRequest
	d := json.NewDecoder(bytes.NewReader(request))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return "", expires, fmt.Errorf("the request for a token: %w", err)
	}
	f, err := q.family(m, time.Now())
	if err != nil {
		return "", expires, err
	}
	if most := OfflineLife.Milliseconds(); f.TTL > most {
		if q.TTL != nil {
			return "", expires, fmt.Errorf("ttl: a token that is made without a node lives %v at the most, or its revocation could be forgotten before it ends: "+
				"ask for less, or have a node make it", OfflineLife)
		}
		f.TTL = most
	}
	f.N = 1
	c := f.claims(newID())
	c.Family = "" // there is none
	token, err = m.sign(c)
	return token, time.Unix(c.Expires, 0), err
}

// Check says of a token what a configuration can tell: not whether it is revoked.
func Check(cfg Config, issuer, token string) (Checked, error) {
	m, err := newMaker(cfg, issuer)
	switch {
	case err != nil:
		return Checked{}, err
	case !cfg.Enabled():
		return Checked{}, ErrOff
	}
	return checked(m.open(token, time.Now())), nil
}
