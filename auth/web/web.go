// Package web is what the HTTP handlers of logins share: bounded JSON bodies in, JSON
// answers and problem details (RFC 9457) out, credentials of the Authorization header,
// and the comparison of secrets.
package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
)

// MaxBody is the length in bytes of the longest body that ReadJSON takes.
const MaxBody = 64 << 10

// answerTime is how long a caller may take to read an answer.
const answerTime = 10 * time.Second

// Problem is an answer that says what is wrong. It implements error, so that a handler
// can return it. No field may hold what a client sent as a secret.
type Problem struct {
	// Status is the HTTP status, Code a constant that programs compare, such as
	// CLIENT_EXISTS, Detail a sentence for people.
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail,omitempty"`
}

// Error implements error.
func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// Unauthorized is the one answer to wrong, missing and unknown credentials, the same for
// all, so that nobody learns which it was.
var Unauthorized = &Problem{Status: http.StatusUnauthorized, Code: "UNAUTHORIZED", Detail: "the credentials are missing or wrong"}

// Handle makes a handler of a function that returns what to answer, as JSON, with a
// status, or a problem: a *Problem anywhere in err, or else an internal error, which
// failed is told and the caller is not. A nil answer has no body.
func Handle(failed func(r *http.Request, err error), do func(r *http.Request) (status int, answer any, err error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		status, answer, err := do(r)
		if err == nil {
			Answer(w, status, answer)
			return
		}
		var p *Problem
		if !errors.As(err, &p) {
			failed(r, err)
			p = &Problem{Status: http.StatusServiceUnavailable, Code: "UNAVAILABLE", Detail: "this could not be done now: try again"}
		}
		Refuse(w, p)
	})
}

// Answer writes an answer.
func Answer(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Cache-Control", "no-store")
	if answer == nil {
		write(w, status, nil)
		return
	}
	text, err := json.Marshal(answer)
	if err != nil {
		panic(fmt.Sprintf("web: answer cannot be written as JSON: %v", err)) // a mistake of ours
	}
	w.Header().Set("Content-Type", "application/json")
	write(w, status, text)
}

// write writes an answer, for which the caller has answerTime.
func write(w http.ResponseWriter, status int, text []byte) {
	// The port gives a request a time from its beginning, and it may have waited longer for a
	// password to be checked. A connection that cannot be told has gone, or has no such time.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
	w.WriteHeader(status)
	_, _ = w.Write(text) // the caller may have gone
}

// Refuse writes a problem.
func Refuse(w http.ResponseWriter, p *Problem) {
	text, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("web: problem cannot be written as JSON: %v", err)) // strings and a number
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="hadal"`)
	}
	write(w, p.Status, text)
}

// ReadJSON reads the body into v, one JSON object without keys that v lacks. What is
// wrong comes back as a *Problem, which does not quote the body.
func ReadJSON(r *http.Request, v any) error {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return &Problem{http.StatusUnsupportedMediaType, "NOT_JSON", "send JSON, with Content-Type: application/json"}
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		_, err = d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
	var (
		tooLong *http.MaxBytesError
		field   *json.UnmarshalTypeError
	)
	switch {
	case errors.As(err, &tooLong):
		return &Problem{http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE", fmt.Sprintf("the body is over %d bytes", MaxBody)}
	case errors.As(err, &field):
		return &Problem{http.StatusBadRequest, "INVALID_BODY", fmt.Sprintf("%s: is not of the right type", field.Field)}
	default:
		return &Problem{http.StatusBadRequest, "INVALID_BODY", "the body is not one JSON object with the keys of this request"}
	}
}

// Bearer is the token of an Authorization header of that kind, or empty.
func Bearer(h http.Header) string {
	scheme, token, ok := strings.Cut(h.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// SameSecret compares two secrets in a time that does not depend on where they differ,
// nor on their lengths. An empty secret is the same as none.
func SameSecret(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1 && a != ""
}
