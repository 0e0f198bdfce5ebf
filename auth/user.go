package auth

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
}

// IsAnonymous says whether the user has no name of its own: rules see
// isAuthenticated false, presence does not show it.
func (u *User) IsAnonymous() bool { return u.ID == Anonymous }
