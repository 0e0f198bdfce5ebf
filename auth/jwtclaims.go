package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/golang-jwt/jwt/v5"
)

// claimRules say which claims become what of a user.
type claimRules struct {
	id, role               string
	serverData, clientData claimMap
}

// claimMap makes data of claims: an object of several, or one taken whole.
type claimMap struct {
	whole string
	names []claimName
}

// claimName is one claim and the key it gets.
type claimName struct{ key, claim string }

// newClaimRules reads the option claims. Its error opens with a key of it.
func newClaimRules(c *ClaimsConfig) (claimRules, error) {
	r := claimRules{id: c.ID, role: c.Role}
	if r.id == "" {
		r.id = "sub"
	}
	if r.role == "" {
		r.role = "role"
	}
	var errs [2]error
	r.serverData, errs[0] = newClaimMap("serverData", c.ServerData)
	r.clientData, errs[1] = newClaimMap("clientData", c.ClientData)
	return r, errors.Join(errs[:]...)
}

func newClaimMap(option string, v any) (m claimMap, err error) {
	add := func(key string, claim any) {
		name, ok := claim.(string)
		if !ok || name == "" || key == "" {
			err = fmt.Errorf("%s: each claim is the name of one, as a text", option)
		}
		m.names = append(m.names, claimName{key, name})
	}
	switch v := v.(type) {
	case nil:
	case string:
		m.whole = v
	case []any:
		for _, claim := range v {
			name, _ := claim.(string) // add complains
			add(name, claim)
		}
	case yaml.MapSlice:
		for _, item := range v {
			add(fmt.Sprint(item.Key), item.Value)
		}
	default:
		err = fmt.Errorf("%s: write a list of claims, a mapping of names to claims, or the name of one claim", option)
	}
	return m, err
}

// user makes a user of the claims of a token whose signature is right, or says why not.
func (r claimRules) user(claims jwt.MapClaims) (u *User, why string) {
	var id string
	switch v := claim(claims, r.id).(type) {
	case string:
		id = v
	case json.Number:
		id = wholeNumber(v.String())
	}
	switch {
	case id == "":
		return nil, "it names no user in " + r.id
	case len(id) > maxUserName, !utf8.ValidString(id), strings.ContainsFunc(id, unicode.IsControl):
		return nil, "what it names as user is no name"
	case isAnonymous(id), reserved(id):
		return nil, "the user that it names cannot log in"
	}
	u = &User{ID: id}
	server, ok := r.serverData.of(claims)
	if role, _ := claim(claims, r.role).(string); role != "" { // of another type, it is none
		switch data := server.(type) {
		case nil:
			server = yaml.MapSlice{{Key: "role", Value: role}}
		case yaml.MapSlice:
			server = setKey(data, "role", role)
		case map[string]any:
			data = maps.Clone(data)
			data["role"] = role
			server = data
		}
		ok = true
	}
	if ok {
		switch server.(type) {
		case yaml.MapSlice, map[string]any:
		default:
			return nil, "what becomes serverData is no object"
		}
		text, err := jsonText(server)
		if err != nil {
			return nil, "what becomes serverData is no JSON"
		}
		u.ServerData = text
	}
	if client, ok := r.clientData.of(claims); ok {
		text, err := jsonText(client)
		if err != nil {
			return nil, "what becomes clientData is no JSON"
		}
		u.ClientData = text
	}
	return u, ""
}

// wholeNumber is a number in JSON as a name, if it is a whole one that is not 0, without
// rounding it, or two users might become one; else empty.
func wholeNumber(raw string) string {
	if strings.ContainsAny(raw, ".eE") || raw == "0" || raw == "-0" {
		return ""
	}
	return raw
}

// setKey sets one key of an object.
func setKey(m yaml.MapSlice, key string, value any) yaml.MapSlice {
	for i := range m {
		if m[i].Key == key {
			m[i].Value = value
			return m
		}
	}
	return append(m, yaml.MapItem{Key: key, Value: value})
}

// of makes the data; false when there is none. Claims that a token lacks are left out.
func (m claimMap) of(claims jwt.MapClaims) (any, bool) {
	if m.whole != "" {
		v := claim(claims, m.whole)
		return v, v != nil
	}
	if len(m.names) == 0 {
		return nil, false
	}
	data := yaml.MapSlice{}
	for _, n := range m.names {
		if v := claim(claims, n.claim); v != nil {
			data = append(data, yaml.MapItem{Key: n.key, Value: v})
		}
	}
	return data, true
}

// claim is the claim of a name, or, if there is none, what the name leads to as a path.
func claim(claims map[string]any, name string) any {
	if v, ok := claims[name]; ok {
		return v
	}
	first, rest, ok := strings.Cut(name, ".")
	if !ok {
		return nil
	}
	inner, ok := claims[first].(map[string]any)
	if !ok {
		return nil
	}
	return claim(inner, rest)
}
