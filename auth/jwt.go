package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/tidwall/gjson"
)

const (
	// maxToken is the length in bytes of the longest token that is looked at.
	maxToken = 16 << 10
	// usualLeeway is how far clocks may be apart unless configured.
	usualLeeway = 5 * time.Second
	// maxLeeway is the most that can be configured.
	maxLeeway = 5 * time.Minute
)

// What a client is told whose token does not let it in, as JSON text.
const (
	// TokenExpired is told to who shows a token that was right until it expired.
	TokenExpired = `"TOKEN_EXPIRED"`
	tokenInvalid = `"TOKEN_INVALID"`
	tokenOfOther = `"TOKEN_OF_ANOTHER_USER"`
	keysMissing  = `"TOKEN_KEYS_UNAVAILABLE"`
)

// jwtStrategy lets in who shows a JSON Web Token (RFC 7519) that somebody signed whose
// key is configured.
type jwtStrategy struct {
	tokenKeys []string // of Params, the first that is there counts
	keys      []signingKey
	set       *keySet // nil without jwksUrl
	parser    *jwt.Parser
	validator *jwt.Validator
	leeway    time.Duration
	required  []string
	claims    claimRules
	report    bool
	log       *slog.Logger
}

var (
	_ guarded     = (*jwtStrategy)(nil)
	_ runner      = (*jwtStrategy)(nil)
	_ tokenKeeper = (*jwtStrategy)(nil)
)

// newJWT checks the options, each mistake opening with key, and reads the key files.
func newJWT(key string, o *Options, report bool, log *slog.Logger) (*jwtStrategy, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(key+"."+format, args...)) }

	j := &jwtStrategy{report: report, log: log, tokenKeys: []string{"token", "jwt"}, required: []string{"exp"}, leeway: usualLeeway}
	if o.TokenKey != "" {
		j.tokenKeys = []string{o.TokenKey}
	}
	if o.RequiredClaims != nil {
		j.required = o.RequiredClaims
	}
	if o.Leeway != nil {
		j.leeway = *o.Leeway
	}
	if j.leeway < 0 || j.leeway > maxLeeway {
		fail("leeway: %v is not between 0 and %v", j.leeway, maxLeeway)
	}
	for i := range o.Keys {
		k, err := newSigningKey(&o.Keys[i])
		if err != nil {
			fail("keys[%d].%w", i, err)
			continue
		}
		if slices.ContainsFunc(j.keys, func(other signingKey) bool { return k.id != "" && k.id == other.id }) {
			fail("keys[%d].id: %q stands here twice", i, k.id)
		}
		j.keys = append(j.keys, k)
	}
	var err error
	switch {
	case o.JWKSURL != "":
		if j.set, err = newKeySet(key, o, log); err != nil {
			errs = append(errs, err)
		}
	case len(o.Keys) == 0:
		fail("keys: is empty: add a key, such as {id: one, alg: HS256, secret: …}, or the jwksUrl of a set of them")
	case len(o.Algorithms) > 0:
		fail("algorithms: is for keys of a jwksUrl, and there is none: each of keys has its alg")
	}
	if j.claims, err = newClaimRules(&o.Claims); err != nil {
		fail("claims.%w", err)
	}
	if slices.Contains(o.Audience, "") {
		fail("audience: one of them is empty")
	}

	options := []jwt.ParserOption{jwt.WithLeeway(j.leeway)}
	if len(o.Audience) > 0 {
		options = append(options, jwt.WithAudience(o.Audience...))
	}
	if o.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.Issuer))
	}
	j.validator = jwt.NewValidator(options...)
	j.parser = jwt.NewParser(jwt.WithValidMethods(allAlgorithms), jwt.WithJSONNumber(), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
	return j, errors.Join(errs...)
}

func (j *jwtStrategy) reports() bool { return j.report }

func (j *jwtStrategy) keysOfTokens() []string { return j.tokenKeys }

// run keeps the set of keys fresh.
func (j *jwtStrategy) run(ctx context.Context) {
	if j.set != nil {
		j.set.run(ctx)
	}
}

// Authenticate implements Authenticator.
func (j *jwtStrategy) Authenticate(ctx context.Context, a *Attempt) (Verdict, error) {
	text, verdict := j.token(a)
	if text == "" {
		return verdict, nil
	}
	token, err := j.parser.Parse(text, j.candidates(ctx))
	switch {
	case errors.Is(err, errNoKeys):
		// It may be a good one. But another strategy must not be asked: who is not sure of
		// a token does not pass it on.
		return Verdict{Opinion: Refused, Reason: keysMissing}, nil
	case err != nil:
		return j.refuse(a, "its signature", tokenInvalid), nil
	}
	claims, ok := token.Claims.(jwt.MapClaims)
	if !ok {
		return j.refuse(a, "its form", tokenInvalid), nil
	}
	return j.judge(a, claims), nil
}

// token finds the token of an attempt. Without one, it says what becomes of it.
func (j *jwtStrategy) token(a *Attempt) (string, Verdict) {
	for _, key := range j.tokenKeys {
		v := param(a.Params, key)
		switch {
		case !present(v):
		case v.Type == gjson.String && v.Str != "" && len(v.Str) <= maxToken:
			return v.Str, Verdict{}
		default:
			return "", j.refuse(a, "its form", tokenInvalid)
		}
	}
	switch {
	case len(a.Token) > maxToken:
		return "", j.refuse(a, "its form", tokenInvalid)
	case a.Token == "" && j.report:
		return "", Verdict{Opinion: Refused, Reason: reason("missing or no string: " + j.tokenKeys[0])}
	}
	return a.Token, Verdict{}
}

// judge is the verdict on a token whose signature is right.
func (j *jwtStrategy) judge(a *Attempt, claims jwt.MapClaims) Verdict {
	err := j.validator.Validate(claims)
	expired := errors.Is(err, jwt.ErrTokenExpired)
	for _, other := range []struct {
		is  error
		why string
	}{
		{jwt.ErrTokenInvalidAudience, "its audience"}, {jwt.ErrTokenInvalidIssuer, "its issuer"}, {jwt.ErrTokenNotValidYet, "not valid yet"},
		{jwt.ErrTokenRequiredClaimMissing, "a claim is missing"}, {jwt.ErrInvalidType, "a claim is of another type"},
	} {
		if errors.Is(err, other.is) {
			return j.refuse(a, other.why, tokenInvalid)
		}
	}
	if err != nil && !expired {
		return j.refuse(a, "its claims", tokenInvalid)
	}
	for _, name := range j.required {
		if v := claim(claims, name); v == nil || v == "" {
			return j.refuse(a, "a claim is missing: "+name, tokenInvalid)
		}
	}
	user, why := j.claims.user(claims)
	if why != "" {
		return j.refuse(a, why, tokenInvalid)
	}
	if user.Session, why = j.session(claims); why != "" {
		return j.refuse(a, why, tokenInvalid)
	}
	// Who says who he is must not be told another name by his own token.
	for _, key := range []string{"username", "id"} {
		if v := param(a.Params, key); present(v) && (v.Type != gjson.String || v.Str != user.ID) {
			return j.refuse(a, "it is another user's", tokenOfOther)
		}
	}
	if expired {
		// Always a refusal: this strategy knows the token, and the client what to do.
		return Verdict{Opinion: Refused, Reason: TokenExpired, Uncounted: true}
	}
	return Verdict{Opinion: Accepted, User: user}
}

// session is what is kept of a token while its connection lives.
func (j *jwtStrategy) session(claims jwt.MapClaims) (s *Session, why string) {
	s = &Session{}
	if id, ok := claims["jti"].(string); ok {
		s.ID = id
	}
	// A claim that is zero would be taken for one that is not there.
	for name, at := range map[string]*time.Time{"exp": &s.Expires, "iat": &s.Issued} {
		if _, ok := claims[name]; !ok {
			continue
		}
		var date *jwt.NumericDate
		var err error
		if name == "exp" {
			date, err = claims.GetExpirationTime()
		} else {
			date, err = claims.GetIssuedAt()
		}
		if err != nil || date == nil || date.Unix() <= 0 {
			return nil, name + " is no time"
		}
		*at = date.Time
	}
	if !s.Expires.IsZero() {
		s.Expires = s.Expires.Add(j.leeway.Truncate(time.Second))
	}
	return s, ""
}

// refuse is a refusal where the strategy is to report one, else no opinion. The log is
// told why, in debug, and nothing of the token.
func (j *jwtStrategy) refuse(a *Attempt, why, told string) Verdict {
	j.log.Debug("token refused", "remote", a.RemoteAddr, "err", why)
	if !j.report {
		return Verdict{}
	}
	return Verdict{Opinion: Refused, Reason: told}
}
