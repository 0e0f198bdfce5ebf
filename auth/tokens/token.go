package tokens

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"hadal/auth"
)

// maxToken is the length in bytes of the longest access token. A login message has room
// for it before the login (endpoint).
const maxToken = 16 << 10

// Why a token is not taken. Their texts are what clients are told (Code).
var (
	// errForeign is not told anybody: it is for others to judge.
	errForeign = errors.New("not a token of this cluster")
	// ErrInvalid is a token of this cluster, by its own word, that is none.
	ErrInvalid = errors.New("TOKEN_INVALID")
	// ErrExpired is a token that was good.
	ErrExpired = errors.New("TOKEN_EXPIRED")
	// ErrRevoked is a token that would be good.
	ErrRevoked = errors.New("TOKEN_REVOKED")
	// errTooLong is one that would be made, but nobody could log in with.
	errTooLong = errors.New("the token would be too long")
)

// claims are what an access token says.
type claims struct {
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	Subject  string `json:"sub"`
	ID       string `json:"jti"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	// IssuedMillis is IssuedAt in milliseconds: a token made right after a revocation is not
	// meant by it.
	IssuedMillis int64           `json:"iatms"`
	Family       string          `json:"fam,omitempty"`
	ServerData   json.RawMessage `json:"serverData,omitempty"`
	ClientData   json.RawMessage `json:"clientData,omitempty"`
}

var _ jwt.Claims = (*claims)(nil)

// The methods of jwt.Claims. The library is not asked to judge by them: what counts, and
// in which order, stands in open.

// GetExpirationTime implements jwt.Claims.
func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) {
	return jwt.NewNumericDate(time.Unix(c.Expires, 0)), nil
}

// GetIssuedAt implements jwt.Claims.
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error) {
	return jwt.NewNumericDate(time.Unix(c.IssuedAt, 0)), nil
}

// GetNotBefore implements jwt.Claims.
func (c *claims) GetNotBefore() (*jwt.NumericDate, error) { return nil, nil }

// GetIssuer implements jwt.Claims.
func (c *claims) GetIssuer() (string, error) { return c.Issuer, nil }

// GetSubject implements jwt.Claims.
func (c *claims) GetSubject() (string, error) { return c.Subject, nil }

// GetAudience implements jwt.Claims.
func (c *claims) GetAudience() (jwt.ClaimStrings, error) { return jwt.ClaimStrings{c.Audience}, nil }

// user is who logs in with the token.
func (c *claims) user() *auth.User {
	return &auth.User{
		ID: c.Subject, ServerData: string(c.ServerData), ClientData: string(c.ClientData),
		Session: &auth.Session{
			ID: c.ID, Family: c.Family, Ours: true,
			Issued: time.UnixMilli(c.IssuedMillis), Expires: time.Unix(c.Expires, 0),
		},
	}
}

// maker makes and opens tokens. It never changes; a reload makes another one.
type maker struct {
	cfg    Config
	issuer string
	keys   *keyring
}

func newMaker(cfg Config, issuer string) (*maker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	keys, err := newKeyring(cfg.SigningKeys)
	return &maker{cfg, issuer, keys}, err
}

// sign makes the token that says c, whose issuer and audience it sets.
func (m *maker) sign(c claims) (string, error) {
	c.Issuer, c.Audience = m.issuer, m.issuer
	k := m.keys.first
	t := jwt.NewWithClaims(k.method, &c)
	t.Header["kid"] = k.id
	text, err := t.SignedString(k.sign)
	switch {
	case err != nil:
		return "", fmt.Errorf("sign a token: %w", err)
	case len(text) > maxToken:
		return "", errTooLong
	}
	return text, nil
}

// open says what a token of this cluster says, if it is good at a time, as far as that
// can be known from the token: revocations are not asked. The claims of one that has
// expired come with ErrExpired.
func (m *maker) open(text string, now time.Time) (*claims, error) {
	if text == "" || len(text) > maxToken {
		return nil, errForeign
	}
	parser := jwt.NewParser(jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding())
	c := new(claims)
	_, err := parser.ParseWithClaims(text, c, func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string)
		k := m.keys.byID[id]
		if k == nil || k.method.Alg() != t.Method.Alg() {
			return nil, ErrInvalid
		}
		return k.verifies, nil
	})
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed), c.Issuer != m.issuer:
		return nil, errForeign
	case err != nil, c.Audience != m.issuer, c.ID == "", auth.CheckName(c.Subject) != nil:
		return nil, ErrInvalid
	case time.UnixMilli(c.IssuedMillis).After(now.Add(clockTolerance)):
		return nil, ErrInvalid // no revocation would concern it
	}
	// Longer than any token may live revocations are not remembered.
	if most := time.UnixMilli(c.IssuedMillis).Add(m.cfg.longest()).Unix(); c.Expires > most+1 {
		c.Expires = most + 1
	}
	if !now.Before(time.Unix(c.Expires, 0)) {
		return c, ErrExpired
	}
	return c, nil
}
