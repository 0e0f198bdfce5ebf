package register

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"hadal/auth"
	"hadal/auth/web"
)

// Paths are those of Routes.
var Paths = []string{"/register", "/login", "/unregister"}

// Problems that are always the same. Nothing in them comes from a caller.
var (
	problemExists  = &web.Problem{Status: http.StatusConflict, Code: "CLIENT_EXISTS", Detail: "there is a client of this id already: choose another, or log in"}
	problemUnknown = &web.Problem{Status: http.StatusNotFound, Code: "CLIENT_UNKNOWN", Detail: "there is no client of this id"}
	problemOthers  = &web.Problem{Status: http.StatusForbidden, Code: "FORBIDDEN", Detail: "a client can unregister nobody but itself"}
	problemLimited = &web.Problem{Status: http.StatusTooManyRequests, Code: "RATE_LIMITED", Detail: "too many registrations from this address: wait a minute"}
	problemMany    = &web.Problem{Status: http.StatusInsufficientStorage, Code: "TOO_MANY_CLIENTS", Detail: "there are as many clients as registration.maxClients allows: the operator can raise it, or unregister some"}
	problemCrowded = &web.Problem{Status: http.StatusInsufficientStorage, Code: "STORE_CROWDED", Detail: "the store of logins is half full, and what is left is not for registrations: ask the operator"}
	problemBusy    = &web.Problem{Status: http.StatusServiceUnavailable, Code: "BUSY", Detail: "too many logins wait: try again"}
	problemMethod  = &web.Problem{Status: http.StatusMethodNotAllowed, Code: "METHOD_NOT_ALLOWED", Detail: "use POST"}
	problemFailed  = &web.Problem{Status: http.StatusServiceUnavailable, Code: "UNAVAILABLE", Detail: "this could not be done now: try again"}
)

// Routes are the handlers of the public port by path. RemoteAddr of a request is the
// address of the client, as far as the operator lets it be known.
func (r *Room) Routes() map[string]http.Handler {
	return map[string]http.Handler{
		"/register":   r.handle(callRegister, r.serveRegister),
		"/login":      r.handle(callLogin, r.serveLogin),
		"/unregister": r.handle(callUnregister, r.serveUnregister),
	}
}

// handle makes a handler of a POST, which is counted.
func (r *Room) handle(what call, do func(req *http.Request) (int, any, error)) http.Handler {
	post := web.Handle(func(*http.Request, error) {}, func(req *http.Request) (int, any, error) {
		ctx, cancel := context.WithTimeout(req.Context(), callLimit)
		defer cancel()
		status, answer, err := do(req.WithContext(ctx))
		r.counts.call(what, err)
		if err != nil {
			return 0, nil, r.problem(req, err)
		}
		return status, answer, nil
	})
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			web.Refuse(w, problemMethod)
			return
		}
		post.ServeHTTP(w, req)
	})
}

// problem is an error as its caller is told it. What the operator has to know is logged.
func (r *Room) problem(req *http.Request, err error) *web.Problem {
	var p *web.Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, errWrong), errors.Is(err, errExpired):
		return web.Unauthorized
	case errors.Is(err, errExists):
		return problemExists
	case errors.Is(err, errUnknown):
		return problemUnknown
	case errors.Is(err, errMany):
		r.log.Warn("client not registered: there are as many as registration.maxClients allows", "remote", req.RemoteAddr, "maxClients", r.cfg.MaxClients)
		return problemMany
	case errors.Is(err, errCrowded):
		r.log.Error("client not registered: the store of logins is half full, and what is left is kept for users and tokens", "remote", req.RemoteAddr)
		return problemCrowded
	case errors.Is(err, auth.ErrBusy), errors.Is(err, errRaced), errors.Is(err, context.DeadlineExceeded):
		r.log.Debug("registration could not wait", "path", req.URL.Path, "remote", req.RemoteAddr, "err", err)
		return problemBusy
	case errors.Is(err, context.Canceled):
		return problemFailed // nobody is there to read it
	}
	r.log.Error("registration failed", "path", req.URL.Path, "remote", req.RemoteAddr, "err", err)
	return problemFailed
}

// caller is who sends a request.
type caller struct {
	admin bool
	user  *auth.User // one of our clients; nil for others
	id    string     // its id
}

// callerOf finds out who it is by the Authorization header; nobody is not an error.
func (r *Room) callerOf(req *http.Request) (caller, error) {
	token := web.Bearer(req.Header)
	name, password, basic := req.BasicAuth()
	switch {
	case token == "" && !basic && req.Header.Get("Authorization") == "":
		return caller{}, nil
	case token != "" && !isToken(token):
		return r.operator(req, token)
	case basic && name == "":
		return r.operator(req, password)
	case token == "" && !basic:
		return caller{}, errWrong
	}
	found := credentials{token: token, id: name, key: password, pair: basic}
	u, err := r.judge(req.Context(), found, req.RemoteAddr)
	if err != nil {
		return caller{}, err
	}
	if !basic {
		name, _ = clientOf(token)
	}
	return caller{user: u, id: name}, nil
}

// operator is the caller who sends a secret of the operator's. Who guesses at it is slowed as
// who guesses at keys is.
func (r *Room) operator(req *http.Request, secret string) (caller, error) {
	right := false
	err := r.deps.Turnstile.Check(req.Context(), req.RemoteAddr, auth.Cost{}, func() bool {
		right = r.deps.Admin(secret)
		return right
	})
	if err == nil && !right {
		err = errWrong
	}
	return caller{admin: right}, err
}

// pair is the body of register and login.
type pair struct {
	ClientID string `json:"clientID"`
	AuthKey  string `json:"authKey"`
}

// registered is the answer to register and unregister.
type registered struct {
	ClientID string `json:"clientID"`
}

// bearerAnswer is the answer to login.
type bearerAnswer struct {
	ClientID    string `json:"clientID"`
	BearerToken string `json:"bearerToken"`
	// ExpiresAt is when the token ends, in milliseconds since 1970.
	ExpiresAt int64 `json:"expiresAt"`
}

// serveRegister answers POST /register.
func (r *Room) serveRegister(req *http.Request) (int, any, error) {
	var by caller
	if r.cfg.Mode == Authenticated || req.Header.Get("Authorization") != "" {
		var err error
		if by, err = r.callerOf(req); err != nil {
			return 0, nil, err
		}
		if r.cfg.Mode == Authenticated && !by.admin && by.user == nil {
			return 0, nil, errWrong
		}
	}
	var body pair
	if err := web.ReadJSON(req, &body); err != nil {
		return 0, nil, err
	}
	for _, why := range []string{wrongID(body.ClientID), wrongKey(body.AuthKey)} {
		if why != "" {
			return 0, nil, &web.Problem{Status: http.StatusBadRequest, Code: "INVALID_CLIENT", Detail: why}
		}
	}
	if auth.Special(r.cfg.UserPrefix + body.ClientID) {
		return 0, nil, &web.Problem{Status: http.StatusBadRequest, Code: "INVALID_CLIENT",
			Detail: "clientID: open and OPEN, and what begins with hadal/, nobody can have"}
	}
	if !by.admin && !r.rates.allow(req.RemoteAddr, time.Now()) {
		return 0, nil, problemLimited
	}
	if err := r.register(req.Context(), body.ClientID, body.AuthKey, req.RemoteAddr); err != nil {
		return 0, nil, err
	}
	r.log.Info("client registered", "client", body.ClientID, "by", by.String(), "remote", req.RemoteAddr)
	return http.StatusCreated, registered{body.ClientID}, nil
}

// serveLogin answers POST /login.
func (r *Room) serveLogin(req *http.Request) (int, any, error) {
	var body pair
	if err := web.ReadJSON(req, &body); err != nil {
		return 0, nil, err
	}
	token, b, err := r.login(req.Context(), body.ClientID, body.AuthKey, req.RemoteAddr)
	if err != nil {
		return 0, nil, hideUnknown(err)
	}
	r.log.Info("client has a new bearer token", "client", body.ClientID, "remote", req.RemoteAddr)
	return http.StatusOK, bearerAnswer{body.ClientID, token, b.expires().UnixMilli()}, nil
}

// serveUnregister answers POST /unregister.
func (r *Room) serveUnregister(req *http.Request) (int, any, error) {
	by, err := r.callerOf(req)
	if err != nil {
		return 0, nil, hideUnknown(err)
	}
	if !by.admin && by.user == nil {
		return 0, nil, errWrong
	}
	var body registered
	if err := web.ReadJSON(req, &body); err != nil {
		return 0, nil, err
	}
	login := "" // for the operator, any registration
	if !by.admin {
		if body.ClientID != by.id {
			return 0, nil, problemOthers
		}
		c, _, err := r.find(req.Context(), by.id)
		switch {
		case err != nil:
			return 0, nil, err
		case !c.vouches(by.user.Session.ID, time.Now()):
			return 0, nil, errWrong // what it came with has ended meanwhile
		}
		login = c.Login
	}
	if err := r.unregister(req.Context(), body.ClientID, login); err != nil {
		return 0, nil, err
	}
	r.log.Info("client unregistered", "client", body.ClientID, "by", by.String(), "remote", req.RemoteAddr)
	return http.StatusOK, body, nil
}

// hideUnknown is an error that does not say whether there is such a client.
func hideUnknown(err error) error {
	if errors.Is(err, errWrong) {
		return errWrong
	}
	return err
}

// String is who it is, for the log.
func (c caller) String() string {
	switch {
	case c.admin:
		return "the operator"
	case c.user != nil:
		return fmt.Sprintf("client %q", c.id)
	}
	return "itself"
}
