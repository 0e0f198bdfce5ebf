package auth

import (
	"bytes"
	"encoding/json"
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// webhookAnswer is an answer of the webhook.
type webhookAnswer struct {
	status      int
	contentType string
	location    string
	body        []byte
}

// judge is the verdict of an answer that is not to be asked for again (spec 06 §5.4), and
// says whether it is the webhook's own.
func (w *webhook) judge(a webhookAnswer) (v Verdict, said bool) {
	body, isJSON := a.read()
	if !w.permitted[a.status] {
		return w.refusal(a, body, isJSON)
	}
	switch {
	case len(a.body) == 0:
		return w.named("")
	case isJSON && body.IsObject():
		return w.accepted(a.body)
	case isJSON && body.Type == gjson.String:
		return w.named(body.Str)
	case isJSON, isJSONType(a.contentType), a.begins("{"), a.begins("["):
		return w.unusable("its JSON is neither an object nor a text")
	case a.begins("<"):
		return w.unusable("it is a page") // of a proxy, or a login form
	}
	return w.named(strings.TrimSpace(string(a.body)))
}

// read is the body as JSON, and whether it can be read as such. An object is one whatever
// the Content-Type says: an isValid in it must not go unheard.
func (a webhookAnswer) read() (gjson.Result, bool) {
	if !isJSONType(a.contentType) && !a.begins("{") || !json.Valid(a.body) {
		return gjson.Result{}, false
	}
	return gjson.ParseBytes(a.body), true
}

// begins says how the body begins, white space aside.
func (a webhookAnswer) begins(with string) bool {
	return bytes.HasPrefix(bytes.TrimSpace(a.body), []byte(with))
}

// accepted is the verdict of an object under a permitted status.
func (w *webhook) accepted(body []byte) (v Verdict, said bool) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return w.unusable("it is no object") // judge has seen one
	}
	if valid, ok := fields["isValid"]; ok && string(valid) != "true" {
		return w.refuse(string(fields["clientData"])), true
	}
	user := &User{ClientData: string(fields["clientData"]), ServerData: string(fields["serverData"])}
	switch id := gjson.ParseBytes(fields["id"]); {
	case !present(id):
	case id.Type == gjson.String:
		user.ID = id.Str
	case id.Type == gjson.Number && wholeNumber(id.Raw) != "":
		user.ID = id.Raw
	default:
		return w.unusable("its id is neither a text nor a whole number")
	}
	if v, said = w.named(user.ID); v.Opinion == Accepted {
		user.ID = v.User.ID
		v.User, v.Token = user, gjson.ParseBytes(fields["token"]).String()
	}
	return v, said
}

// named lets a user in, if the name is one.
func (w *webhook) named(id string) (v Verdict, said bool) {
	switch {
	case id == "" || isAnonymous(id):
		id = Anonymous
	case len(id) > maxUserName:
		return w.unusable("its id is too long")
	case !utf8.ValidString(id) || strings.ContainsFunc(id, unicode.IsControl):
		return w.unusable("its id has characters that no name has")
	case reserved(id):
		return w.unusable("its id begins with hadal/, as the names do that belong to the server")
	}
	return Verdict{Opinion: Accepted, User: &User{ID: id}}, true
}

// refusal is the verdict of an answer whose status does not let the client in.
func (w *webhook) refusal(a webhookAnswer, body gjson.Result, isJSON bool) (v Verdict, said bool) {
	var why string
	switch text := strings.TrimSpace(string(a.body)); {
	case isJSON && body.IsObject():
		if len(body.Map()) > 0 {
			why = body.Raw
		}
	case isJSON && body.Type == gjson.String:
		why = reason(body.Str)
	case isJSON || text == "":
	default:
		why = reason(strings.ToValidUTF8(text, "\uFFFD"))
	}
	switch {
	case a.status >= 500:
		// Judged like any other, but for the next strategy, which is not asked: a webhook
		// that fails must not open the door behind it.
		w.complaints.tell("the webhook of auth fails", "status", a.status)
		return Verdict{Opinion: Refused, Reason: why}, false
	case a.status >= 300 && a.status < 400:
		w.complaints.tell("the webhook of auth redirects to where it is not followed: set endpointUrl to the place itself",
			"status", a.status, "to", hostOf(a.location))
		return unheard(answerUnusable), false
	}
	return w.refuse(why), true
}

// unusable is the verdict of an answer that cannot be what the webhook means to say.
func (w *webhook) unusable(why string) (v Verdict, said bool) {
	w.complaints.tell("the answer of the webhook of auth is of no use", "err", why)
	return unheard(answerUnusable), false
}

// mediaType is a Content-Type without its parameters.
func mediaType(contentType string) string {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return ""
	}
	return t
}

// isJSONType says whether a Content-Type announces JSON.
func isJSONType(contentType string) bool {
	t := mediaType(contentType)
	return t == "application/json" || strings.HasSuffix(t, "+json")
}
