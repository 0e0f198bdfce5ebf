// Package register lets clients introduce themselves: one that brings an id and a key is
// registered, and from then on is a user by that id. It is what services expect whose
// clients are programs: a plugin registers once, keeps its key, and comes back with it.
//
// # What is kept
//
// One entry of the vault for each client, client/<id>, with the bcrypt hash of its key,
// and of its bearer token, if it has one, the SHA-256 hash and the time at which it ends.
// That both stand in one entry makes every question of races one of compare-and-set:
// Create succeeds for one of two that register the same id, whichever nodes they ask; of
// two logins the later Update wins and thereby ends the other's token; and when the entry
// goes, nothing of the client is left that could outlive it. A token names its client, so
// one read finds what to compare it with:
//
//	hb~<id, base64url>~<32 random bytes, base64url>
//
// Keys are as long as bcrypt can use, at most 72 bytes: what is behind them it would
// ignore. Key and id have no control characters, and the id has no colon, so that both can
// be sent as HTTP Basic. A bcrypt hash takes tens of milliseconds, and anybody can ask for one:
// so all of them, also those for ids that nobody has, wait for their turn (auth.Turnstile). An
// unknown id is compared with a hash that nobody has the key of, so that it takes as long
// as a wrong key. A key that was right lately is known by its HMAC, with a key of this
// process, and need not wait.
//
// # Ways in
//
//	POST /register    {clientID, authKey}   201 {clientID}; 400, 401, 409, 429
//	POST /login       {clientID, authKey}   200 {clientID, bearerToken, expiresAt}; 401
//	POST /unregister  {clientID}            200 {clientID}; 401, 403, 404
//
// Room is also an auth.Authenticator: of {clientID, authKey} and {token} in the parameters
// of a login; where these name nobody, of the bearer token and the Basic credentials that
// came with the upgrade. Bearer tokens begin with hb~, so that those of other strategies
// are left to them. Guard judges the same credentials before the upgrade, where HTTP can
// still answer 401; but a token that has only expired is told so at the login.
//
// # Ways out
//
// A login that is over ends its connections on all nodes. The room keeps a list of the
// connections of this node that were made with its credentials, and follows the entries of
// the vault: what an entry does not vouch for any more is closed. A login may be judged on
// the old entry and listed after the change of it was heard; so whoever is listed is
// looked up once more. After a gap in what was heard all of them are. The time at which a
// bearer token ends by itself stands in the connection's auth.Session, where who looks
// after tokens finds it and closes the connection then (auth/tokens). A node that is cut off
// hears of no end: after the grace that tokens have as well, it closes the connections of all
// registered clients and lets no more in until it has caught up (vault.Touch).
//
// Room.mu is held over no call of anything else.
package register
