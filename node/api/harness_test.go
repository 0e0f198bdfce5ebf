package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"hadal/auth"
	"hadal/auth/vault"
	"hadal/protocol"
)

// fake is a node that answers as it is told to, and notes what it gets.
type fake struct {
	receive func(*Client, *protocol.Message) // nil acknowledges everything

	mu     sync.Mutex
	got    []string // names of what was received; guarded by mu
	opened int      // guarded by mu
	open   int      // clients that were not closed; guarded by mu
}

func (f *fake) Opened(*Caller) func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.opened--
	}
}

func (f *fake) Receive(c *Client, m *protocol.Message) {
	f.mu.Lock()
	f.got = append(f.got, m.Name)
	f.open++
	f.mu.Unlock()
	if f.receive != nil {
		f.receive(c, m)
		return
	}
	acknowledge(c, m)
}

func (f *fake) Closed(*Client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
}

// names are those of what was received so far.
func (f *fake) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.got)
}

// acknowledge answers a write.
func acknowledge(c *Client, m *protocol.Message) {
	c.Answer(&protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordWriteAcknowledgement, Name: m.Name, CorrelationID: m.CorrelationID})
}

// anybody lets everybody in under the name of their bearer.
type anybody struct{}

func (anybody) Authenticate(_ context.Context, a *auth.Attempt) (auth.Verdict, error) {
	switch a.Token {
	case "busy":
		return auth.Verdict{}, auth.ErrBusy
	case "broken":
		return auth.Verdict{}, errors.New("the store is down")
	case "nobody":
		return auth.Verdict{Opinion: auth.Accepted}, nil
	case "expired":
		return auth.Verdict{Opinion: auth.Refused, Reason: `"TOKEN_EXPIRED"`}, nil
	case "talkative":
		return auth.Verdict{Opinion: auth.Refused, Reason: `{"error":"the database says no"}`}, nil
	}
	return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{ID: a.Token}, Token: "for later"}, nil
}

// newServer makes an API over a node, which says what to change of the configuration.
func newServer(node *fake, v vault.Vault, change func(*Config)) *Server {
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	return New(cfg, Deps{
		Auth: anybody{}, Node: node, Vault: v, Ready: func() bool { return true }, AnyOrigin: true, Log: slog.New(slog.DiscardHandler),
		Knock: func(*http.Request) (func(*auth.User) bool, int, time.Duration) {
			return func(*auth.User) bool { return false }, 0, 0
		},
		Attempt: func(r *http.Request) *auth.Attempt {
			_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
			return &auth.Attempt{RemoteAddr: "192.0.2.1", Header: r.Header, Token: token}
		},
	})
}

// post asks an API without a network.
func post(s *Server, path, user string, header map[string]string, body io.Reader) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, body)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+user)
	for key, value := range header {
		r.Header.Set(key, value)
	}
	w := httptest.NewRecorder()
	routes := s.Routes()
	h := routes[path]
	if h == nil {
		h = routes["/api/"]
	}
	h.ServeHTTP(w, r)
	return w
}

// writes is a batch that writes records.
func writes(names ...string) string {
	var commands []string
	for _, name := range names {
		commands = append(commands, fmt.Sprintf(`{"topic":"record","action":"write","recordName":%q,"data":{}}`, name))
	}
	return `{"body":[` + strings.Join(commands, ",") + `]}`
}
