package auth

import (
	"strings"
	"testing"
)

func TestAnAPIKeyLetsItsBackendIn(t *testing.T) {
	key, hash := NewAPIKey()
	other, _ := NewAPIKey()
	a, err := newAPIKeys([]APIKey{{ID: "billing", Hash: hash, Role: "back\"end"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		attempt Attempt
		want    Opinion
	}{
		"as a bearer":                   {Attempt{Params: `{}`, Token: key}, Accepted},
		"as the token of the login":     {Attempt{Params: `{"token":"` + key + `"}`}, Accepted},
		"beside its own name":           {Attempt{Params: `{"token":"` + key + `","username":"billing"}`}, Accepted},
		"beside another name":           {Attempt{Params: `{"token":"` + key + `","username":"ann"}`}, Refused},
		"another key":                   {Attempt{Params: `{}`, Token: other}, Refused},
		"a key cut short":               {Attempt{Params: `{}`, Token: key[:len(key)-1]}, Refused},
		"nothing but the beginning":     {Attempt{Params: `{}`, Token: apiKeyPrefix}, Refused},
		"the hash instead of the key":   {Attempt{Params: `{}`, Token: hash}, NoOpinion},
		"a bearer of another kind":      {Attempt{Params: `{}`, Token: "ey.x.y"}, NoOpinion},
		"no credentials":                {Attempt{Params: `{}`}, NoOpinion},
		"a password goes before it":     {Attempt{Params: `{"username":"billing","password":"x"}`, Token: key}, NoOpinion},
		"a token goes before a bearer":  {Attempt{Params: `{"token":"ey"}`, Token: key}, NoOpinion},
		"a token that is none":          {Attempt{Params: `{"token":7}`, Token: key}, NoOpinion},
		"of equal keys the last counts": {Attempt{Params: `{"token":"ey","token":"` + key + `"}`}, Accepted},
	} {
		v, err := a.Authenticate(t.Context(), &c.attempt)
		if err != nil || v.Opinion != c.want {
			t.Errorf("%s: %v, %v, want opinion %v", name, v.Opinion, err, c.want)
		}
		if c.want == Accepted && (v.User.ID != "billing" || v.User.ServerData != `{"role":"back\"end"}`) {
			t.Errorf("%s: the user is %+v", name, v.User)
		}
	}
}

func TestAPIKeysThatCannotBeUsedAreNamed(t *testing.T) {
	key, hash := NewAPIKey()
	_, err := newAPIKeys([]APIKey{{ID: "a", Hash: hash}, {ID: "b", Hash: hash}, {ID: "open", Hash: key}, {Hash: "sha256:AAAA"}})
	if err == nil {
		t.Fatal("they are accepted")
	}
	for _, want := range []string{"apiKeys[1].hash: stands here twice", "apiKeys[2].id: ", "apiKeys[2].hash: is no hash", "apiKeys[3].id: ", "apiKeys[3].hash: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), key) {
		t.Error("the error quotes a key")
	}
}

// The strategies behind the keys never see what looks like one, not even one that lets
// everybody in.
func TestAWrongAPIKeyIsRefusedWhateverElseThereIs(t *testing.T) {
	key, hash := NewAPIKey()
	other, _ := NewAPIKey()
	a, err := New([]Config{{Type: "none"}}, false, Deps{APIKeys: []APIKey{{ID: "billing", Hash: hash}}})
	if err != nil {
		t.Fatal(err)
	}
	for bearer, want := range map[string]Opinion{key: Accepted, other: Refused, "": Accepted} {
		v, err := a.Authenticate(t.Context(), &Attempt{Params: `{}`, Token: bearer})
		if err != nil || v.Opinion != want {
			t.Errorf("opinion %v, %v, want %v", v.Opinion, err, want)
		}
		if bearer == key && v.User.ID != "billing" {
			t.Errorf("the key is taken for %q", v.User.ID)
		}
	}
	known, err := a.(Knower).Knows(t.Context(), "billing")
	if !known || err != nil {
		t.Errorf("the name of a backend is known: %v, %v", known, err)
	}
}
