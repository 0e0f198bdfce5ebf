package node

import (
	"fmt"
	"testing"

	"hadal/auth"
	"hadal/auth/users/pgtest"
	"hadal/node/admin"
)

// addUser stores a user with a secret for a password, and makes a secret of the hash too.
func (v *visitor) addUser(name, password string) {
	v.t.Helper()
	hash, err := auth.HashArgon2id(password)
	if err != nil {
		v.t.Fatal(err)
	}
	v.planted = append(v.planted, hash)
	if _, err := v.n.accounts.AddUser(v.t.Context(), "", admin.NewUser{Name: name, Password: hash, ServerData: []byte(`{"role":"admin"}`)}); err != nil {
		v.t.Fatal(err)
	}
}

// guesses are logins that a table of users refuses.
func (v *visitor) guesses() {
	v.login(nil, "", fmt.Sprintf(`{"username":"ann","password":%q}`, v.mark()))
	v.login(nil, "", fmt.Sprintf(`{"username":"nobody","password":%q}`, v.mark()))
	v.login(nil, "", fmt.Sprintf(`{"username":["ann"],"password":{"is":%q}}`, v.mark()))
}

func storageWay() wayIn {
	var password string
	return wayIn{
		config: func(_ *testing.T, c *Config, mark func() string) {
			password = mark()
			c.Auth = []auth.Config{{Type: "storage", Options: auth.Options{CreateUser: true}}}
		},
		visit: func(v *visitor) {
			v.addUser("eve", password) // ann was stored when she first came
			v.guesses()
			v.login(nil, "", fmt.Sprintf(`{"username":"new","password":%q}`, v.mark()))      // is stored
			v.login(nil, "", fmt.Sprintf(`{"username":"a\u0000b","password":%q}`, v.mark())) // cannot be
		},
		in: func() string { return fmt.Sprintf(`{"username":"eve","password":%q}`, password) },
	}
}

// postgresWay is a table in PostgreSQL, which goes away in the end.
func postgresWay() wayIn {
	var server *pgtest.Server
	return wayIn{
		config: func(t *testing.T, c *Config, _ func() string) {
			server = pgtest.Start(t)
			c.Auth = []auth.Config{{Type: "storage", Options: auth.Options{Backend: "postgres", ConnectionString: server.URL()}}}
		},
		visit: func(v *visitor) {
			v.planted = append(v.planted, pgtest.Password)
			password := v.mark()
			v.addUser("ann", password)
			v.guesses()
			right := fmt.Sprintf(`{"username":"ann","password":%q}`, password)
			before := v.n.endpoint.Stats().Logins["accepted"]
			v.login(nil, "", right)
			if now := v.n.endpoint.Stats().Logins["accepted"]; now != before+1 {
				v.t.Error("the right login does not log in")
			}
			server.Stop()
			v.login(nil, "", right)
			v.guesses()
		},
	}
}

// postgresAwayWay is a table in a PostgreSQL that nobody has ever reached.
func postgresAwayWay() wayIn {
	return wayIn{
		config: func(_ *testing.T, c *Config, mark func() string) {
			c.Auth = []auth.Config{{Type: "storage", Options: auth.Options{
				Backend: "postgres", ConnectionString: "postgres://hadal:" + mark() + "@127.0.0.1:1/hadal?sslmode=disable&sslpassword=" + mark(),
			}}}
		},
		visit: func(v *visitor) { v.guesses() },
	}
}
