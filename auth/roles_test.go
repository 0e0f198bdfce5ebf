package auth

import (
	"context"
	"errors"
	"testing"
)

type roleBook map[string]string

func (b roleBook) Role(_ context.Context, id string) (string, error) {
	if id == "broken" {
		return "", errors.New("cannot be asked")
	}
	return b[id], nil
}

func TestTheRoleThatWinsIsInServerData(t *testing.T) {
	book := roleBook{"ada": `ad"min`, "open": "admin"}
	for _, c := range []struct {
		wins, id, data, want string
		fails                bool
	}{
		{"store", "ada", ``, `{"role":"ad\"min"}`, false},
		{"store", "ada", `null`, `{"role":"ad\"min"}`, false},
		{"store", "ada", `{"role":"guest","n":1.50}`, `{"role":"ad\"min","n":1.50}`, false},
		{"store", "bob", `{"role":"guest"}`, `{"role":"guest"}`, false},
		{"store", "bob", ``, ``, false},
		{"store", "open", ``, ``, false}, // nobody in particular
		{"store", "ada", `5`, ``, true},
		{"store", "ada", `["role"]`, ``, true},
		{"store", "bob", `5`, `5`, false},
		{"store", "broken", `{"role":"guest"}`, ``, true},
		{"claim", "ada", `{"role":"guest"}`, `{"role":"guest"}`, false},
		{"claim", "ada", `{"role":""}`, `{"role":"ad\"min"}`, false},
		{"claim", "ada", `{"role":7}`, `{"role":"ad\"min"}`, false},
		{"claim", "ada", `{"x":"y"}`, `{"role":"ad\"min","x":"y"}`, false},
		{"claim", "broken", `{"role":"guest"}`, `{"role":"guest"}`, false},
		{"claim", "broken", `{}`, ``, true},
	} {
		user := &User{ID: c.id, ServerData: c.data, ClientData: "1"}
		a := WithRoles(&fixed{v: Verdict{Opinion: Accepted, User: user}}, book, RolesConfig{Wins: c.wins})
		v, err := a.Authenticate(t.Context(), &Attempt{})
		if c.fails {
			if err == nil || v.Opinion == Accepted {
				t.Errorf("%+v: got %+v, %v, want an error", c, v, err)
			}
			continue
		}
		if err != nil || v.User == nil || v.User.ServerData != c.want || v.User.ClientData != "1" || v.User.ID != c.id {
			t.Errorf("%+v: got %+v, %v", c, v.User, err)
		}
		if user.ServerData != c.data {
			t.Errorf("%+v: the strategy's own user was changed", c)
		}
	}
}

func TestWhoIsRefusedHasNoRole(t *testing.T) {
	for _, v := range []Verdict{{Opinion: Refused, Reason: "1"}, {}} {
		got, err := WithRoles(&fixed{v: v}, roleBook{}, RolesConfig{Wins: "store"}).Authenticate(t.Context(), &Attempt{})
		if got != v || err != nil {
			t.Errorf("got %+v, %v, want %+v", got, err, v)
		}
	}
}
