package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/tidwall/gjson"
)

// The values of RolesConfig.Wins.
const (
	RoleOfStore = "store"
	RoleOfClaim = "claim"
)

// Roles is all that logins ask of a role store (auth/users has them).
type Roles interface {
	// Role is the role of a user, or empty when he has none there.
	Role(ctx context.Context, id string) (string, error)
}

// WithRoles gives every user whom a accepts the role that counts, as serverData.role,
// whichever strategy it was. When the store cannot be asked nobody is let in: he might
// have more rights than he should.
func WithRoles(a Authenticator, store Roles, cfg RolesConfig) Authenticator {
	return &roled{a, store, cfg.Wins == RoleOfClaim}
}

type roled struct {
	Authenticator
	store Roles
	claim bool // what the strategy says goes first
}

// Authenticate implements Authenticator.
func (r *roled) Authenticate(ctx context.Context, a *Attempt) (Verdict, error) {
	v, err := r.Authenticator.Authenticate(ctx, a)
	if err != nil || v.Opinion != Accepted || v.User == nil || v.User.ID == "" || isAnonymous(v.User.ID) {
		return v, err
	}
	if claim := gjson.Get(v.User.ServerData, "role"); r.claim && claim.Type == gjson.String && claim.Str != "" {
		return v, nil
	}
	role, err := r.store.Role(ctx, v.User.ID)
	if err != nil {
		return Verdict{}, fmt.Errorf("role store: %w", err)
	}
	if role == "" {
		return v, nil
	}
	u := *v.User // the strategy's own is shared
	if u.ServerData, err = withRole(u.ServerData, role); err != nil {
		return Verdict{}, fmt.Errorf("role of %s: %w", u.ID, err)
	}
	v.User = &u
	return v, nil
}

// withRole is serverData with that role in it.
func withRole(serverData, role string) (string, error) {
	text, err := json.Marshal(role)
	if err != nil {
		return "", err
	}
	old := gjson.Parse(serverData)
	if !old.IsObject() && old.Type != gjson.Null {
		return "", errors.New("serverData is not an object, so that no role can be put in it")
	}
	var b strings.Builder
	b.WriteString(`{"role":` + string(text))
	old.ForEach(func(key, value gjson.Result) bool {
		if old.IsObject() && key.String() != "role" {
			b.WriteString("," + key.Raw + ":" + value.Raw)
		}
		return true
	})
	b.WriteString("}")
	return b.String(), nil
}
