// Package api is deepstream's HTTP API: batches of commands (POST /api), logins that
// answer with a token (POST /api/auth), reads (GET /api), and the OpenAPI document that
// describes them (spec 04).
//
// # A request
//
// The body is read first, within bounds of its own, then the caller logs in by the
// strategies that a socket's client is asked by, then all commands are looked at, and
// then they run, one after the other: each begins when the one before it was answered,
// so that it sees what that one did. A command is a message of a client that lives for
// that message only (call), which goes through the node's pipeline as every client's:
// shape, rate limits, rules, room. It never subscribes and is in nobody's presence.
//
// # Time
//
// A request has RequestTimeout for its login and its commands. When that is over, those
// that have not been answered are said to have timed out, those that have not begun do
// not begin, and the answer is sent. The goroutine that runs them may be held up longer
// by a room that takes nothing; it keeps its seat until then (Run waits for it). A caller
// that hangs up changes nothing: what it asked for is done, and its answer kept if it
// had an Idempotency-Key.
//
// # Memory
//
// What bodies, beyond a small one each, and answers take comes out of one budget. What
// finds none left is refused: a body with 503, a command with an error of its own. How
// many requests run at once is bounded, in all and for each user.
//
// # Lock
//
// Each type with a mutex says what it guards; none is held while another is taken or
// anything outside this package is called.
package api
