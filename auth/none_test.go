package auth

import (
	"strings"
	"testing"
)

func TestNoneTakesTheUsernameAsJavaScriptWould(t *testing.T) {
	for _, c := range []struct{ params, want string }{
		{`{}`, "open"},
		{`{"username":"egon"}`, "egon"},
		{`{"username":"a","username":"b"}`, "b"},
		{`{"user\u006eame":"escaped key"}`, "escaped key"},
		{`{"Username":"other key"}`, "open"},
		{`{"username":" "}`, " "},
		{`{"username":""}`, "open"},
		{`{"username":null}`, "open"},
		{`{"username":false}`, "open"},
		{`{"username":true}`, "true"},
		{`{"username":0}`, "open"},
		{`{"username":-0.0}`, "open"},
		{`{"username":1e-400}`, "open"},
		{`{"username":12}`, "12"},
		{`{"username":1.50}`, "1.5"},
		{`{"username":1e21}`, "1e+21"},
		{`{"username":123456789012345680000}`, "123456789012345680000"},
		{`{"username":1e-7}`, "1e-7"},
		{`{"username":0.000001}`, "0.000001"},
		{`{"username":1e400}`, "Infinity"},
		{`{"username":-1e400}`, "-Infinity"},
		{`{"username":"OPEN"}`, "open"},
		{`{"username":"open"}`, "open"},
		{`{"username":"Open"}`, "Open"},
		{`{"username":"constructor"}`, "constructor"},
		{`[{"username":"in an array"}]`, "open"},
		{`[]`, "open"},
	} {
		v, err := none{}.Authenticate(t.Context(), &Attempt{Params: c.params})
		if err != nil || v.Opinion != Accepted || v.User.ID != c.want || v.User.ClientData != "" || v.User.ServerData != "" {
			t.Errorf("%s: got %+v, %v, want user %q without data", c.params, v, err, c.want)
		}
	}
}

func TestNoneRefusesWhatIsNoName(t *testing.T) {
	for params, want := range map[string]string{
		`{"username":{}}`:         `{"error":"username is neither a string nor a number"}`,
		`{"username":["a"]}`:      `{"error":"username is neither a string nor a number"}`,
		`{"username":"hadal/me"}`: `{"error":"names that begin with hadal/ belong to the server"}`,
		`{"username":"` + strings.Repeat("x", maxUserName+1) + `"}`: `{"error":"username is too long"}`,
	} {
		v, err := none{}.Authenticate(t.Context(), &Attempt{Params: params})
		if err != nil || v.Opinion != Refused || v.Reason != want {
			t.Errorf("%s: got %+v, %v, want refused with %s", params, v, err, want)
		}
	}
}

func FuzzNoneAnswersAnyParameters(f *testing.F) {
	for _, s := range []string{`{"username":"a"}`, `{"username":1e21}`, `{"username":"\ud800"}`, `[`, `{"username":`, ``} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, params string) {
		v, err := none{}.Authenticate(t.Context(), &Attempt{Params: params})
		switch {
		case err != nil:
			t.Errorf("error %v", err)
		case v.Opinion == Accepted && v.User.ID == "":
			t.Error("accepted a user without an id")
		case v.Opinion == NoOpinion:
			t.Error("no opinion, but none always has one")
		}
	})
}
