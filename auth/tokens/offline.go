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

// Make makes an access token by a configuration, without a node and so without a refresh
// token. request is the body of POST /auth/token.
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
