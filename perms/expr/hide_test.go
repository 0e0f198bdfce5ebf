package expr

import (
	"slices"
	"strings"
	"testing"
)

func secret(key string) bool { return key == "pin" || key == "p\u00efn" }

func TestSecretsAreHiddenInJSON(t *testing.T) {
	for raw, want := range map[string]string{
		`{"pin":1234,"a":{"pin":["x"],"b":2}}`:  `{"pin":"***","a":{"pin":"***","b":2}}`,
		` [1, {"pin" : {"deep":true} , "c":3}]`: `[1, {"pin" : "***" , "c":3}]`,
		"{\n\"p\\u00efn\": 1}":                  "{ \"p\\u00efn\": \"***\"}",
		`"pin"`:                                 `"pin"`,
		`{}`:                                    `{}`,
	} {
		if got, ok := Hide(raw, secret); got != want || !ok {
			t.Errorf("%s: got %s, %v, want %s", raw, got, ok, want)
		}
	}
	if got, ok := Hide(`{"pin":12`, secret); got != "" || ok {
		t.Errorf("no JSON: got %q, %v", got, ok)
	}
	if got, _ := Hide(`{"pin":12}`, nil); got != `{"pin":12}` {
		t.Errorf("nothing is secret, and still: %s", got)
	}
}

func TestTracesHideSecrets(t *testing.T) {
	const doc = `{"pin":"hush-1","n":{"pin":["hush-2"]},"on":{"pin":true},"name":"pin"}`
	for _, c := range []struct {
		rule string
		want []string // parts of the trace
	}{
		{"data.pin === 'x'", []string{`data.pin = "***"`, `data = {"pin":"***","n":{"pin":"***"}`, `data.pin === 'x' = false`}},
		{"data[data.name] === 'x'", []string{`data[data.name] = "***"`, `data.name = "pin"`}},
		{"data['pin'].toUpperCase() + 'y' === 'x'", []string{`data['pin'].toUpperCase() + 'y' = "***"`, `data['pin'].toUpperCase() = "***"`}},
		{"data?.n?.pin[0].length > 3", []string{`data?.n?.pin[0].length = "***"`, `data?.n?.pin[0].length > 3 = true`}},
		{"[data.pin, {a: data.n}].length === 2", []string{`[data.pin, {a: data.n}] = "***"`}},
		{"({pin: name, b: data.n}) && true", []string{`{pin: name, b: data.n} = {"pin":"***","b":{"pin":"***"}}`}},
		{"data.on.pin", []string{`data.on.pin = "***"`}},
		{"data.pin ? name : 0", []string{`data.pin ? name : 0 = "users/ada"`}},
		{"data.on.pin ? data.pin : 0", []string{`data.on.pin ? data.pin : 0 = "***"`}},
		{"user.data.pin", []string{`user.data.pin = "***"`, `"data":{"pin":"***"}`}},
		{"data.missing?.pin", []string{`data.missing?.pin = undefined`}},
	} {
		env := ada(doc, "")
		env.User.Data = Unchecked(`{"pin":"hush-3"}`)
		trace := told(compile(t, c.rule, all).ExplainHiding(env, secret))
		text := strings.Join(trace, "\n")
		if strings.Contains(text, "hush") || strings.Contains(text, "HUSH") {
			t.Errorf("%s: a secret is told:\n%s", c.rule, text)
		}
		for _, want := range c.want {
			if !slices.ContainsFunc(trace, func(line string) bool { return strings.Contains(line, want) }) {
				t.Errorf("%s: %q is not in\n%s", c.rule, want, text)
			}
		}
	}
}
