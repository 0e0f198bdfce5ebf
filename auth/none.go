package auth

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// maxUserName is the longest name, in bytes, that somebody may give himself. It
// is told to everybody who watches presence, and written to the log.
const maxUserName = 1024

// none lets everybody in under the name they ask for (spec 06 §5.1).
type none struct{}

// Authenticate implements Authenticator.
func (none) Authenticate(_ context.Context, a *Attempt) (Verdict, error) {
	id, ok := openName(param(a.Params, "username"))
	if !ok {
		return Verdict{Opinion: Refused, Reason: reason("username is neither a string nor a number")}, nil
	}
	if len(id) > maxUserName {
		return Verdict{Opinion: Refused, Reason: reason("username is too long")}, nil
	}
	if reserved(id) {
		return Verdict{Opinion: Refused, Reason: reason("names that begin with hadal/ belong to the server")}, nil
	}
	return Verdict{Opinion: Accepted, User: &User{ID: id}}, nil
}

// openName is the user id for a username of any JSON type: as JavaScript turns
// it into text when JavaScript calls it true, else Anonymous. Objects and
// arrays are no names: JavaScript would make one name of many of them.
func openName(v gjson.Result) (id string, ok bool) {
	switch v.Type {
	case gjson.String:
		id = strings.Clone(v.Str) // or the whole message would live as long as the user
	case gjson.Number:
		id = jsNumber(v.Raw)
	case gjson.True:
		id = "true"
	case gjson.JSON:
		return "", false
	}
	if id == "" || isAnonymous(id) {
		return Anonymous, true
	}
	return id, true
}

// jsNumber writes a JSON number as JavaScript writes the value it stands for,
// or nothing when that is zero, which JavaScript calls false.
func jsNumber(raw string) string {
	f, err := strconv.ParseFloat(raw, 64)
	switch {
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	case err != nil || f == 0 || math.IsNaN(f):
		return ""
	}
	b, err := json.Marshal(f) // encoding/json formats as ECMAScript does
	if err != nil {
		return ""
	}
	return string(b)
}

// param is one parameter of a login. Of equal keys the last counts, as for
// JSON.parse. Whatever is no object has no parameters.
func param(params, key string) gjson.Result {
	var found gjson.Result
	if p := gjson.Parse(params); p.IsObject() {
		p.ForEach(func(k, v gjson.Result) bool {
			if k.String() == key {
				found = v
			}
			return true
		})
	}
	return found
}

// reason is the JSON text of a refusal that says why.
func reason(text string) string {
	b, err := json.Marshal(struct {
		Error string `json:"error"`
	}{text})
	if err != nil {
		panic(err) // a string always marshals
	}
	return string(b)
}
