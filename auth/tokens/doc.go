// Package tokens makes the cluster's own tokens and looks after those who logged in with
// one: it mints for backends, renews, revokes, and ends connections in time.
//
// # Tokens
//
// An access token is a JWT, signed by the first of the configured keys and verified by
// any of them, so that keys can be exchanged; each key is bound to its algorithm, by its
// id. Issuer and audience are the cluster's. It says who the user is and what rules and
// the client see of him, so that a login asks nobody. No token lives longer than the
// longer one of accessTTL and refreshTTL, whatever it says: so it is known how long a
// revocation has to be remembered.
//
// A refresh token is no JWT but a random text. It belongs to a family, made when a
// backend mints: an entry of the vault (family/<id>) with the user, the digest of the
// one refresh token that is good now, and that of the one before. Each use exchanges it,
// by compare-and-set, so on all nodes together it is exchanged once. The id of an access
// token is that of its family and a number.
//
// # A refresh token that comes twice
//
// Who sends one that was exchanged already is either a thief, or the other one is: the
// family ends, its access tokens too, and its connections are closed. But an honest
// client may send a token twice as well: it got no answer and tries again, or has two
// tabs. Both cannot be told from a theft, so time decides: within retryWindow of the
// exchange the token before gets the very answer that the exchange had, the same two
// tokens. The store need not hold them for that: the next secret is derived from the one
// before with a salt that is stored, and the access token is signed again with the same
// claims. A thief gains no more by the window than a place in the same chain, and is
// found out at the next exchange by either of the two.
//
// A refresh token carries a tag, so that one that never was any is told from an old one:
// it is refused, and ends no family. Who reads the vault can make tags, but not the
// secret that belongs to a digest.
//
// # Revocations
//
// They are entries of the vault (revoked/...), with the time before which tokens are
// void: of one token, of one user, of everybody; and of one family, whole. Each lives
// until the last token that it concerns has expired, be it of a time when tokens lived
// longer: how long they may is noted in the vault (life/...) before any is handed out. Every node watches them, refuses
// what is revoked, and closes connections within a fraction of a second. A refresh token
// is revoked together with the access token that it came with. Nothing is deleted by a
// revocation, so that it can be undone while it lasts.
//
// Kicks travel the same way (revoked/kick/...): each node closes the connections that the
// user has when it hears of one, at most once for each kick, and nobody compares clocks.
//
// A node whose watch is lost does not know what is revoked. For offlineGrace it goes on
// with what it knew. Then it closes the connections of tokens made here and lets no more
// in, until it has caught up: such a login waits a moment for that, and then is told to
// try again, elsewhere if there is a balancer; it is not refused, because the token may
// well be good. So it is, too, between a node's start and its first catching up.
//
// # Sessions
//
// A connection whose user has a Session (auth.User) is looked after, whoever made the
// token: it is told before the token expires, and ended a grace after. All sessions
// stand in one heap, for whose head one timer runs. Renewing replaces a connection's
// user, which its rooms learn from the node; this package only moves the session.
//
// # Locks
//
// sessions.mu and revocations.mu, never both. A session is entered before it is asked
// whether it is revoked, and a revocation is noted before the sessions are asked, so one
// of the two finds the other. Nothing is called under a lock.
package tokens
