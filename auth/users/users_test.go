package users

import (
	"errors"
	"strings"
	"testing"
)

func TestANewUserHasAnIDOfItsOwn(t *testing.T) {
	a, err := New("ada", "$argon2id$x")
	if err != nil {
		t.Fatal(err)
	}
	b, err := New("ada", "$argon2id$x")
	if err != nil {
		t.Fatal(err)
	}
	if a.ID() == b.ID() || len(a.ID()) != 36 || a.ID()[14] != '4' {
		t.Errorf("ids %q and %q, want two UUIDs of version 4", a.ID(), b.ID())
	}
	if want := `{"id":"` + a.ID() + `"}`; a.ClientData != want || !strings.HasPrefix(a.ServerData, `{"created":1`) {
		t.Errorf("got clientData %s, serverData %s, want %s and the time", a.ClientData, a.ServerData, want)
	}
}

func TestClientDataKeepsTheID(t *testing.T) {
	u := User{ClientData: `{"id":"one","x":1}`}
	for text, want := range map[string]string{
		`{}`:                        `{"id":"one"}`,
		`{"id":"two"}`:              `{"id":"one"}`,
		`{"id":5,"b":"<ü>","a":[]}`: `{"id":"one","b":"<ü>","a":[]}`,
	} {
		if err := u.SetClientData(text); err != nil || u.ClientData != want {
			t.Errorf("%s: got %s, %v, want %s", text, u.ClientData, err, want)
		}
	}
	for _, text := range []string{`[]`, `"x"`, `null`, `{`, ``} {
		if err := u.SetClientData(text); err == nil {
			t.Errorf("%q was taken as clientData: %s", text, u.ClientData)
		}
	}
}

// What deepstream's storage holds, and what its PostgreSQL connector has around it.
func TestUsersOfDeepstreamAreRead(t *testing.T) {
	const value = `{"username":"ada","password":"5f4dSALT==","clientData":{"id":"7f1e"},"serverData":{"created":1500000000000}}`
	want := User{Name: "ada", Password: "5f4dSALT==", ClientData: `{"id":"7f1e"}`, ServerData: `{"created":1500000000000}`}
	for _, line := range []string{
		value,
		`{"id":"ada","version":1,"val":` + value + `}`,
		`{"id":"ada","version":1,"val":"` + strings.ReplaceAll(value, `"`, `\"`) + `"}`,
	} {
		if got, err := Decode([]byte(line)); got != want || err != nil {
			t.Errorf("%s: got %+v, %v, want %+v", line, got, err, want)
		}
	}
	text, err := Encode(&want)
	if string(text) != value || err != nil {
		t.Errorf("Encode = %s, %v, want %s", text, err, value)
	}
}

func TestWhatIsMissingIsMadeUp(t *testing.T) {
	u, err := Decode([]byte(`{"username":"ada","password":"x","clientData":{"name":"Ada"}}`))
	if err != nil || u.ID() == "" || !strings.HasSuffix(u.ClientData, `,"name":"Ada"}`) || u.ServerData != "null" {
		t.Errorf("got %+v, %v, want an id, the name, and null", u, err)
	}
}

func TestWhatIsNoUserIsRefusedAndNotQuoted(t *testing.T) {
	for _, line := range []string{
		``, `{`, `null`, `[]`, `"s3cret"`, `{"password":"s3cret"}`, `{"username":"ada"}`, `{"username":"","password":"s3cret"}`,
		`{"username":"a\u0000b","password":"s3cret"}`, `{"username":"` + strings.Repeat("n", MaxName+1) + `","password":"s3cret"}`,
		`{"username":5,"password":"s3cret"}`, `{"username":"ada","password":{"s3cret":1}}`,
		`{"username":"ada","password":"s3cret","role":"admin"}`, `{"username":"ada","password":"s3cret","clientData":[1]}`,
		`{"username":"ada","password":"s3cret"} {}`,
	} {
		u, err := Decode([]byte(line))
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%.80s: got %+v, %v, want an error without the password", line, u, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"username":"ada","password":"x","clientData":{"id":"7"},"serverData":{"created":1}}`)
	f.Add(`{"id":"ada","version":1,"val":"{\"username\":\"ada\",\"password\":\"x\"}"}`)
	f.Add(`{"username":"ada","password":"x","clientData":{"id":"a","id":"b"}}`)
	f.Fuzz(func(t *testing.T, line string) {
		u, err := Decode([]byte(line))
		if err != nil {
			return
		}
		text, err := Encode(&u)
		if err != nil {
			t.Fatalf("%+v was read and cannot be written: %v", u, err)
		}
		again, err := Decode(text)
		if err != nil || again.ID() != u.ID() || again.Name != u.Name || again.Password != u.Password {
			t.Fatalf("%s: got %+v, %v, want %+v", text, again, err, u)
		}
	})
}

func TestASourceSaysWhatIsWrongWithIt(t *testing.T) {
	for _, c := range []struct {
		src  Source
		want string // empty: nothing is wrong
	}{
		{Source{}, ""},
		{Source{Table: "users of ü"}, ""},
		{Source{Backend: Postgres, ConnectionString: "postgres://h/d", Table: "logins.users"}, ""},
		{Source{Backend: Postgres, ConnectionString: "host=h dbname=d"}, ""},
		{Source{Backend: "mysql"}, `backend: "mysql" is not one of embedded, postgres`},
		{Source{ConnectionString: "postgres://h/d"}, "connectionString: is for backend postgres"},
		{Source{Backend: Postgres}, "connectionString: is missing"},
		{Source{Backend: Postgres, ConnectionString: "postgres://u:s3cret@h:port/d"}, "connectionString: is no connection string"},
		{Source{Backend: Postgres, ConnectionString: "postgres://h/d", Table: `users"; DROP TABLE x`}, "table: "},
	} {
		err := c.src.Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: got %v, want %q", c.src, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestAListEndsWithTheErrorOfItsCaller(t *testing.T) {
	enough := errors.New("enough")
	read := func(after string) ([]int, error) {
		if after != "" {
			t.Errorf("read on after the error: %q", after)
		}
		return make([]int, page), nil
	}
	if err := pages(read, func(int) (string, error) { return "k", enough }); !errors.Is(err, enough) {
		t.Errorf("got %v, want what the caller said", err)
	}
}
