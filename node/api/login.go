package api

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/tidwall/gjson"

	"hadal/auth"
	"hadal/auth/web"
)

// openAlias is deepstream's other name for a client without one (spec 06 §4).
const openAlias = "OPEN"

var errNoUser = errors.New("accepted without a user")

// login asks who is calling, with the parameters in the body and the credentials in the
// headers, by the same strategies as a connection.
func (s *Server) login(ctx context.Context, w http.ResponseWriter, r *http.Request, params string) (auth.Verdict, *Caller, *web.Problem) {
	a := s.deps.Attempt(r)
	a.Params, a.API = params, true
	judged, status, wait := s.deps.Knock(r)
	if status != 0 {
		s.stats.login("hasty")
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
		return auth.Verdict{}, nil, problem(status, "TOO_MANY_CONNECTIONS", "too many connect, or fail to log in, in a short time: wait")
	}
	v, caller, p := s.judge(ctx, a)
	var user *auth.User
	if p == nil {
		user = caller.User
	}
	if judged(user) {
		w.Header().Set("Connection", "close")
	}
	return v, caller, p
}

// judge is login for what a request says of who makes it.
func (s *Server) judge(ctx context.Context, a *auth.Attempt) (auth.Verdict, *Caller, *web.Problem) {
	params := a.Params
	where := networkOf(a.RemoteAddr)
	if s.logins.take(where) != seated {
		s.stats.login("busy")
		return auth.Verdict{}, nil, problem(http.StatusServiceUnavailable, "BUSY", "too many logins are under way: try again")
	}
	v, err := s.deps.Auth.Authenticate(ctx, a)
	s.logins.leave(where)
	if err == nil && v.Opinion == auth.Accepted && v.User == nil {
		err = errNoUser
	}
	switch {
	case errors.Is(err, auth.ErrBusy), errors.Is(err, context.DeadlineExceeded):
		s.stats.login("busy")
		return v, nil, problem(http.StatusServiceUnavailable, "BUSY", "too many logins wait: try again")
	case err != nil:
		s.stats.login("failed")
		s.log.Error("login of a request could not be judged", "remote", a.RemoteAddr, "err", err)
		return v, nil, problem(http.StatusServiceUnavailable, "UNAVAILABLE", "the login could not be judged now: try again")
	case v.Opinion != auth.Accepted:
		s.stats.login("refused")
		attrs := []any{"event", "AUTH_UNSUCCESSFUL", "remote", a.RemoteAddr}
		if s.cfg.LogInvalidAuthData {
			attrs = append(attrs, "user", clip(gjson.Get(params, "username").Str))
		}
		s.log.Info("login of a request refused", attrs...)
		return v, nil, problem(http.StatusUnauthorized, "AUTH_UNSUCCESSFUL", refused(v))
	}
	s.stats.login("accepted")
	if v.User.ID == "" || v.User.ID == openAlias {
		named := *v.User
		named.ID = auth.Anonymous
		v.User = &named
	}
	return v, &Caller{User: v.User, RemoteAddr: a.RemoteAddr}, nil
}

// refused is a refusal in words. Of what a strategy says of it, only that a token is no
// good any more is passed on, by which the caller knows what to do.
func refused(v auth.Verdict) string {
	switch v.Reason {
	case `"TOKEN_EXPIRED"`, `"TOKEN_REVOKED"`:
		return "the login was refused: " + v.Reason[1:len(v.Reason)-1]
	}
	return "the login was refused: the credentials are missing or wrong"
}

// networkOf is the network of an address by which strangers are counted.
func networkOf(remote string) string {
	addr, err := netip.ParseAddr(remote)
	if err != nil {
		return remote
	}
	return auth.Network(addr).String()
}
