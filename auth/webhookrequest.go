package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
	"golang.org/x/net/http/httpguts"
)

// secretHeaders are the client's headers that the webhook is not told unless they are
// listed. They hold credentials, mostly for others than this server.
var secretHeaders = []string{
	"Authorization", "Proxy-Authorization", "Cookie", "X-Api-Key", "X-Auth-Token", "X-Access-Token", "X-Csrf-Token", "X-Xsrf-Token",
}

// forwarding says what of a client's request the webhook is told.
type forwarding struct {
	headers []string // nil: all but secretHeaders
	cookies []string
}

// newForwarding reads forwardHeaders and forwardCookies.
func newForwarding(headers, cookies []string) (forwarding, error) {
	var f forwarding
	var errs []error
	if headers != nil {
		f.headers = []string{}
	}
	for _, name := range headers {
		name = textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			errs = append(errs, fmt.Errorf("forwardHeaders: %q is not the name of a header", name))
		case name == "Cookie":
			errs = append(errs, errors.New("forwardHeaders: cookies are chosen one by one: list them in forwardCookies"))
		}
		f.headers = append(f.headers, name)
	}
	for _, name := range cookies {
		if !httpguts.ValidHeaderFieldName(name) { // the same characters
			errs = append(errs, fmt.Errorf("forwardCookies: %q is not the name of a cookie", name))
		}
	}
	f.cookies = cookies
	return f, errors.Join(errs...)
}

// forwards says whether a header is told.
func (f forwarding) forwards(name string) bool {
	if f.headers == nil {
		return !slices.Contains(secretHeaders, name)
	}
	return slices.Contains(f.headers, name)
}

// of picks what is told of a request's headers, in the form that Node has them in: lower
// case, and several of a kind joined.
func (f forwarding) of(h http.Header) map[string]string {
	told := make(map[string]string)
	for name, values := range h {
		if f.forwards(name) {
			told[strings.ToLower(name)] = strings.Join(values, ", ")
		}
	}
	if len(f.cookies) == 0 {
		return told
	}
	var cookies []string
	for _, c := range (&http.Request{Header: h}).Cookies() {
		if slices.Contains(f.cookies, c.Name) {
			cookies = append(cookies, c.Name+"="+c.Value)
		}
	}
	if len(cookies) > 0 {
		told["cookie"] = strings.Join(cookies, "; ")
	}
	return told
}

// webhookConnection is what the webhook is told of a client's connection.
type webhookConnection struct {
	RemoteAddress string            `json:"remoteAddress,omitempty"`
	Headers       map[string]string `json:"headers"`
	Referer       string            `json:"referer,omitempty"`
	URL           string            `json:"url,omitempty"`
}

// webhookBody is the body of a request.
type webhookBody struct {
	ConnectionData webhookConnection `json:"connectionData"`
	AuthData       json.RawMessage   `json:"authData"`
}

// body is the request's body for an attempt (spec 06 §5.4).
func (w *webhook) body(a *Attempt) ([]byte, error) {
	data, err := authData(a.Params, a.Token)
	if err != nil {
		return nil, err
	}
	c := webhookConnection{Headers: w.forward.of(a.Header)}
	if a.API {
		c.URL = a.URL
	} else {
		c.RemoteAddress = a.RemoteAddr
		if w.forward.forwards("Referer") {
			c.Referer = a.Header.Get("Referer")
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(webhookBody{c, data}); err != nil {
		return nil, errors.New("the parameters of a login cannot be written as JSON") // and are not quoted
	}
	return b.Bytes(), nil
}

// authData is what the client sent, with each key once, because readers of JSON differ
// in which of two they take; and with the token of its upgrade, if it has one.
func authData(params, token string) (json.RawMessage, error) {
	if !gjson.Parse(params).IsObject() && token == "" {
		return json.RawMessage(params), nil
	}
	all := make(map[string]json.RawMessage)
	if gjson.Parse(params).IsObject() {
		if err := json.Unmarshal([]byte(params), &all); err != nil {
			return nil, errors.New("the parameters of a login are no JSON object") // and are not quoted
		}
	}
	if token != "" {
		text, err := appendScalar(nil, token)
		if err != nil {
			return nil, err
		}
		all["token"] = text
	}
	return appendScalar(nil, all)
}

// promoted is the headers of a request. A value that no header can hold is named by bad.
func (w *webhook) promoted(params string) (headers http.Header, bad string) {
	headers = w.headers
	for i, key := range w.promote {
		if i == 0 {
			headers = headers.Clone()
		}
		text, ok := headerText(param(params, key))
		switch {
		case !ok:
			return nil, key
		case text != "":
			headers.Set(key, text)
		}
	}
	return headers, ""
}

// headerText is a value as a header has it: empty for what JavaScript calls false.
func headerText(v gjson.Result) (string, bool) {
	switch v.Type {
	case gjson.String:
		return v.Str, httpguts.ValidHeaderFieldValue(v.Str)
	case gjson.Number:
		return jsNumber(v.Raw), true
	case gjson.True:
		return "true", true
	case gjson.JSON:
		return "", false
	}
	return "", true
}
