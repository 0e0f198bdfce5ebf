// Package auth answers who a client is. A strategy is asked with what the
// client sent and what is known of its connection, and says yes (with a User),
// no, or that it has no opinion, so that strategies can stand in a chain
// (spec 06 §5). Nothing here knows of sockets or messages.
//
// Whoever can connect can make us check a password, which is made to be slow. So
// checks go through a turnstile: few at once, by the memory and processors they
// take; the addresses in turns, those that have sent wrong passwords behind the others,
// and slowly if they were very many.
// What is counted is addresses and never names, so that nobody is locked out of
// an account by somebody who guesses at it.
package auth

import (
	"context"
	"errors"
	"net/http"
)

// ErrBusy is the error of an attempt that was not looked at, because too many
// wait. It says nothing about the client, who may try again.
var ErrBusy = errors.New("too many logins wait")

// Attempt is one login as a strategy sees it.
type Attempt struct {
	// Params is the JSON object the client sent, as it came.
	Params string
	// RemoteAddr is the client's address as the operator trusts it.
	RemoteAddr string
	// Header holds the headers of the upgrade or HTTP request. Not to be changed.
	Header http.Header
	// URL is the path and query of that request.
	URL string
	// Token is a token that came with the upgrade rather than in Params: as the header
	// Authorization: Bearer, a cookie, or in the query, each as far as the configuration
	// allows it. Empty without one.
	Token string
	// Name and Password are those of HTTP Basic at the upgrade; both empty without it.
	Name, Password string
	// Broken says, for the client, why the credentials of the upgrade cannot be used: they
	// contradict each other, or are none. Then Token, Name and Password are empty.
	Broken string
	// API says that this is a request of the HTTP API, not a connection.
	API bool
}

// Opinion is what a strategy thinks of an attempt. The zero value is "none".
type Opinion uint8

// The opinions.
const (
	NoOpinion Opinion = iota
	Refused
	Accepted
)

// Verdict is the answer to an Attempt.
type Verdict struct {
	Opinion Opinion
	// User is set when Accepted.
	User *User
	// Reason is JSON text for the refused client, or empty (spec 06 §5).
	Reason string
	// Uncounted says that a refusal is none of the attempts that a connection has: the
	// client did what it should, with credentials that were right once.
	Uncounted bool
	// Token is what a webhook wants a client of the HTTP API to show next time; empty
	// without one (spec 04 §5).
	Token string
}

// Authenticator is one way to log in. Every strategy implements it. It must be
// safe for many callers at once, and return soon after ctx ends. An error means
// the strategy could not judge: the caller logs it and refuses.
type Authenticator interface {
	Authenticate(ctx context.Context, a *Attempt) (Verdict, error)
}
