package tokens

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"hadal/auth"
	"hadal/auth/vault"
	"hadal/auth/web"
)

// The paths of the API. What follows PathSessions is a user.
const (
	PathToken    = "/auth/token"
	PathRefresh  = "/auth/refresh"
	PathRevoke   = "/auth/revoke"
	PathSessions = "/auth/sessions/"
	// PathCheck is answered to the operator only.
	PathCheck = "/auth/check"
)

const (
	// maxRefreshs is how many refreshes are served at once: anybody can ask, and each asks
	// the vault.
	maxRefreshs = 64
	// kickLife is how long a node that is cut off may be so and still hear of a kick.
	kickLife = 10 * time.Minute
	// maxTokenID is the length in bytes of the longest id of a token that is revoked.
	maxTokenID = 512
)

// badRequest is the answer to a body that makes no sense.
func badRequest(code, format string, args ...any) error {
	return &web.Problem{Status: http.StatusBadRequest, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// crowded is the answer when there is no room for more tokens.
var crowded = &web.Problem{
	Status: http.StatusInsufficientStorage, Code: "STORE_CROWDED",
	Detail: "the store of logins is three quarters full, and what is left is not for new tokens: ask the operator",
}

// Routes are the handlers of the public port, by path.
func (r *Room) Routes() map[string]http.Handler {
	return map[string]http.Handler{
		PathToken:    r.handle(r.forBackends(r.serveToken), http.MethodPost),
		PathRefresh:  r.handle(r.serveRefresh, http.MethodPost),
		PathRevoke:   r.handle(r.forBackends(r.serveRevoke), http.MethodPost, http.MethodDelete),
		PathSessions: r.handle(r.forBackends(r.serveKick), http.MethodDelete),
	}
}

// OperatorRoutes are the handlers for the operator, who needs no secret.
func (r *Room) OperatorRoutes() map[string]http.Handler {
	return map[string]http.Handler{
		PathToken:    r.handle(r.serveToken, http.MethodPost),
		PathRevoke:   r.handle(r.serveRevoke, http.MethodPost, http.MethodDelete),
		PathCheck:    r.handle(r.serveCheck, http.MethodPost),
		PathSessions: r.handle(r.serveKick, http.MethodDelete),
	}
}

// serve answers a request, or returns a problem.
type serve func(*http.Request, *maker) (any, error)

// handle makes a handler for some methods.
func (r *Room) handle(do serve, methods ...string) http.Handler {
	failed := func(req *http.Request, err error) {
		r.deps.Log.Error("a request for tokens failed", "method", req.Method, "path", pathOf(req), "err", err)
	}
	answer := web.Handle(failed, func(req *http.Request) (int, any, error) {
		ctx, cancel := context.WithTimeout(req.Context(), vaultTime)
		defer cancel()
		a, err := do(req.WithContext(ctx), r.maker.Load())
		if errors.Is(err, auth.ErrBusy) {
			err = &web.Problem{Status: http.StatusServiceUnavailable, Code: "BUSY", Detail: err.Error()}
		}
		return http.StatusOK, a, err
	})
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.Enabled() {
			http.NotFound(w, req)
			return
		}
		for _, method := range methods {
			if req.Method == method {
				answer.ServeHTTP(w, req)
				return
			}
		}
		w.Header().Set("Allow", strings.Join(methods, ", "))
		web.Refuse(w, &web.Problem{Status: http.StatusMethodNotAllowed, Code: "METHOD_NOT_ALLOWED", Detail: "use " + strings.Join(methods, " or ")})
	})
}

// pathOf is the path without what a client made up.
func pathOf(req *http.Request) string {
	if strings.HasPrefix(req.URL.Path, PathSessions) {
		return PathSessions
	}
	return req.URL.Path
}

// forBackends lets only those do it who send the API secret.
func (r *Room) forBackends(do serve) serve {
	return func(req *http.Request, m *maker) (any, error) {
		if !web.SameSecret(web.Bearer(req.Header), m.cfg.APISecret) {
			return nil, web.Unauthorized
		}
		return do(req, m)
	}
}

// mintRequest is the body of POST /auth/token.
type mintRequest struct {
	ID         string          `json:"id"`
	Role       string          `json:"role"`
	ServerData json.RawMessage `json:"serverData"`
	ClientData json.RawMessage `json:"clientData"`
	TTL        *span           `json:"ttl"`
}

// family is what the request asks for.
func (q *mintRequest) family(m *maker, now time.Time) (family, error) {
	if err := auth.CheckName(q.ID); err != nil {
		return family{}, badRequest("INVALID_ID", "id: %v", err)
	}
	ttl := m.cfg.AccessTTL
	if q.TTL != nil {
		ttl = time.Duration(*q.TTL)
	}
	if ttl < time.Second || ttl > m.cfg.longest() {
		return family{}, badRequest("INVALID_TTL", "ttl: use 1000 milliseconds to %d, the longer of accessTTL and refreshTTL", m.cfg.longest().Milliseconds())
	}
	server, err := withRole(given(q.ServerData), q.Role)
	if err != nil {
		return family{}, err
	}
	return family{User: q.ID, ServerData: server, ClientData: given(q.ClientData), TTL: ttl.Milliseconds(), Issued: now.UnixMilli()}, nil
}

// given is data, or nothing for null.
func given(data json.RawMessage) json.RawMessage {
	if bytes.Equal(data, []byte("null")) {
		return nil
	}
	return data
}

// withRole adds a role to server data, as role.
func withRole(data json.RawMessage, role string) (json.RawMessage, error) {
	if role == "" {
		return data, nil
	}
	fields := make(map[string]json.RawMessage)
	if data != nil && json.Unmarshal(data, &fields) != nil {
		return nil, badRequest("INVALID_SERVER_DATA", "serverData: is not an object, so it has no place for a role")
	}
	if has, ok := fields["role"]; ok && string(has) != jsonText(role) {
		return nil, badRequest("INVALID_SERVER_DATA", "serverData: has a role of its own beside role: send one of them")
	}
	fields["role"] = json.RawMessage(jsonText(role))
	return json.Marshal(fields)
}

func (r *Room) serveToken(req *http.Request, m *maker) (any, error) {
	var q mintRequest
	if err := web.ReadJSON(req, &q); err != nil {
		return nil, err
	}
	f, err := q.family(m, time.Now())
	if err != nil {
		return nil, err
	}
	if r.deps.Crowded != nil && r.deps.Crowded(req.Context()) {
		r.deps.Log.Error("no token minted: the store of logins is three quarters full, and what is left is kept for revocations and removals: remove users or registrations")
		return nil, crowded
	}
	p, err := r.families.create(req.Context(), m, f)
	if errors.Is(err, errTooLong) {
		return nil, badRequest("TOO_MUCH_DATA", "serverData and clientData: are too long for a token of %d bytes", maxToken)
	}
	if err == nil {
		r.counts.minted.Add(1)
	}
	return p, err
}

func (r *Room) serveRefresh(req *http.Request, m *maker) (any, error) {
	var q struct {
		RefreshToken string `json:"refreshToken"`
	}
	if err := web.ReadJSON(req, &q); err != nil {
		return nil, err
	}
	t, ok := parseRefresh(q.RefreshToken)
	if !ok {
		return nil, web.Unauthorized
	}
	select {
	case r.refreshs <- struct{}{}:
		defer func() { <-r.refreshs }()
	case <-req.Context().Done():
		return nil, fmt.Errorf("%w: too many refresh at once", auth.ErrBusy)
	}
	if err := r.caughtUp(req.Context()); err != nil {
		return nil, err
	}
	p, err := r.families.exchange(req.Context(), m, t, r.judgeFamily)
	switch {
	case errors.Is(err, errNoFamily):
		return nil, web.Unauthorized
	case errors.Is(err, ErrRevoked):
		return nil, &web.Problem{Status: http.StatusUnauthorized, Code: ErrRevoked.Error(), Detail: "the refresh token was revoked"}
	case errors.Is(err, errReplayed):
		return nil, r.endFamily(req.Context(), m, p)
	case err != nil:
		return nil, err
	case p.again:
		r.counts.repeated.Add(1)
	default:
		r.counts.refreshed.Add(1)
	}
	return p.pair, nil
}

// judgeFamily refuses a family that is revoked, by its last access token, as a whole, or
// with its user.
func (r *Room) judgeFamily(last claims, created time.Time) error {
	u := last.user()
	since := *u.Session
	since.ID, since.Issued = "", created
	if r.revoked.void(u.ID, u.Session) || r.revoked.void(u.ID, &since) {
		return ErrRevoked
	}
	return nil
}

// endFamily ends the family of a refresh token that came twice, and returns the answer.
func (r *Room) endFamily(ctx context.Context, m *maker, p exchanged) error {
	// First what holds even if this node ends now.
	if err := r.revoke(ctx, revokedFamily+p.id, time.Now().Add(clockTolerance), p.access+2*clockTolerance); err != nil {
		return err
	}
	if err := r.families.end(ctx, p.id); err != nil {
		return err
	}
	r.counts.replayed.Add(1)
	r.deps.Log.Warn("a refresh token was used twice: its family of tokens has been ended", "user", p.user, "family", p.id)
	return web.Unauthorized
}

// revoke writes a revocation, and has it hold here at once.
func (r *Room) revoke(ctx context.Context, key string, before time.Time, life time.Duration) error {
	change, err := put(ctx, r.deps.Vault, key, before, life)
	if err != nil {
		return err
	}
	r.told(change)
	return nil
}

// revokeRequest is the body of POST and DELETE /auth/revoke.
type revokeRequest struct {
	JTI    string  `json:"jti"`
	ID     string  `json:"id"`
	Before *moment `json:"before"`
	// Undo takes the revocation back, as DELETE does.
	Undo bool `json:"undo"`
}

// key is which entry the request is about, and the time before which tokens are void.
func (q *revokeRequest) key(now time.Time) (string, time.Time, error) {
	before := now
	if q.Before != nil {
		before = time.Time(*q.Before)
	}
	switch {
	case before.After(now.Add(clockTolerance)):
		return "", before, badRequest("INVALID_BEFORE", "before: is in the future: tokens that are yet to be made cannot be revoked")
	case before.After(now): // by a clock that is a little ahead
		before = now
	}
	switch {
	case q.JTI != "" && (q.ID != "" || q.Before != nil):
		return "", before, badRequest("INVALID_BODY", "jti: stands alone: send jti, or id with or without before, or before")
	case len(q.JTI) > maxTokenID:
		return "", before, badRequest("INVALID_JTI", "jti: is over %d bytes", maxTokenID)
	case q.JTI != "":
		// Whenever it was issued, by whichever clock.
		return revokedTokens + vault.Segment(q.JTI), now.Add(clockTolerance), nil
	case q.ID != "":
		if err := auth.CheckName(q.ID); err != nil {
			return "", before, badRequest("INVALID_ID", "id: %v", err)
		}
		return revokedUsers + vault.Segment(q.ID), before, nil
	case q.Before != nil || q.Undo:
		return revokedAll, before, nil
	}
	return "", before, badRequest("INVALID_BODY", "send jti, or id with or without before, or before")
}

func (r *Room) serveRevoke(req *http.Request, m *maker) (any, error) {
	var q revokeRequest
	if err := web.ReadJSON(req, &q); err != nil {
		return nil, err
	}
	q.Undo = q.Undo || req.Method == http.MethodDelete
	now := time.Now()
	key, before, err := q.key(now)
	if err != nil {
		return nil, err
	}
	if q.Undo {
		if err := r.deps.Vault.Delete(req.Context(), key, 0); err != nil {
			return nil, fmt.Errorf("take a revocation back: %w", err)
		}
		r.told(vault.Change{Entry: vault.Entry{Key: key}, Gone: true})
		return struct{}{}, nil
	}
	longest, err := r.families.lives.longest(req.Context(), max(m.cfg.longest(), OfflineLife))
	if err != nil {
		return nil, err
	}
	// However long ago before is: a family made earlier may have been exchanged just now, and
	// lasts a whole life from there. Twice the tolerance, as an id may be of a token made by a
	// clock that is ahead, and be judged by one that is behind.
	if err := r.revoke(req.Context(), key, before, longest+2*clockTolerance); err != nil {
		return nil, err
	}
	r.counts.revoked.Add(1)
	return struct{}{}, nil
}

func (r *Room) serveKick(req *http.Request, m *maker) (any, error) {
	user := strings.TrimPrefix(req.URL.Path, PathSessions)
	if err := auth.CheckName(user); err != nil {
		return nil, badRequest("INVALID_ID", "the path names nobody: %v", err)
	}
	life := max(kickLife, 2*m.cfg.OfflineGrace)
	if err := r.revoke(req.Context(), revokedKick+vault.Segment(user), time.Now(), life); err != nil {
		return nil, err
	}
	r.counts.kicked.Add(1)
	return struct{}{}, nil
}

// Checked is what is said of a token. It holds nothing by which one could log in.
type Checked struct {
	// Valid says that one could log in with it now; Reason why not.
	Valid  bool   `json:"valid"`
	Reason string `json:"reason,omitempty"`
	// ID is the user, JTI the token's own id.
	ID     string `json:"id,omitempty"`
	JTI    string `json:"jti,omitempty"`
	Family string `json:"family,omitempty"`
	// IssuedAt and ExpiresAt are milliseconds since 1970.
	IssuedAt   int64           `json:"issuedAt,omitempty"`
	ExpiresAt  int64           `json:"expiresAt,omitempty"`
	ServerData json.RawMessage `json:"serverData,omitempty"`
	ClientData json.RawMessage `json:"clientData,omitempty"`
}

// checked says of a token what check said.
func checked(c *claims, err error) Checked {
	out := Checked{Valid: err == nil}
	if err != nil {
		out.Reason = err.Error()
	}
	if c != nil {
		out.ID, out.JTI, out.Family = c.Subject, c.ID, c.Family
		out.IssuedAt, out.ExpiresAt = c.IssuedMillis, c.Expires*1000
		out.ServerData, out.ClientData = c.ServerData, c.ClientData
	}
	return out
}

func (r *Room) serveCheck(req *http.Request, m *maker) (any, error) {
	var q struct {
		Token string `json:"token"`
	}
	if err := web.ReadJSON(req, &q); err != nil {
		return nil, err
	}
	c, err := r.check(req.Context(), m, q.Token)
	switch {
	case err == nil, errors.Is(err, errForeign), errors.Is(err, ErrInvalid), errors.Is(err, ErrExpired), errors.Is(err, ErrRevoked):
		return checked(c, err), nil
	}
	return nil, err
}
