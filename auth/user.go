package auth

import "time"

// Anonymous is the one id of a client that logged in without a name (spec 15,
// trap 22). The name OPEN, which the peer also uses, is taken as an alias.
const Anonymous = "open"

// User is who a logged-in client is. It is shared by all the rooms and never
// changed after login.
type User struct {
	ID string
	// ServerData is JSON text that only permission rules see (user.data); empty
	// means null.
	ServerData string
	// ClientData is JSON text that was sent to the client at login; empty means
	// there is none.
	ClientData string
	// Session is the token that the login was made with; nil without one.
	Session *Session
	// Key is the entry of apiKeys that the login was made with; nil without one.
	Key *APIKey
}

// Session is what a token says about the login that was made with it. A connection may
// get another one while it lives, when its token is renewed.
type Session struct {
	// ID is the token's own (jti). Tokens that were renewed out of one another share
	// Family, which may be empty.
	ID, Family string
	// Issued and Expires are whole seconds; a zero Expires is never.
	Issued, Expires time.Time
	// Ours says that this cluster made the token, so that it can be revoked here.
	Ours bool
}

// IsAnonymous says whether the user has no name of its own: rules see
// isAuthenticated false, presence does not show it.
func (u *User) IsAnonymous() bool { return u.ID == Anonymous }
