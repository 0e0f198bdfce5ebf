package expr

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestExamplesOfTheDocumentation runs each example of docs/rules.md. A block sets
// variables in comments; data, oldData and the path's variables exist only there.
func TestExamplesOfTheDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	setting := regexp.MustCompile(`^// (\S+) = (.+)$`)
	var scope Scope
	var env *Env
	refs := map[string]string{}
	block, examples := false, 0
	for i, line := range strings.Split(string(page), "\n") {
		rule, result, example := strings.Cut(line, "// → ")
		switch {
		case line == "```js":
			block, scope, env = true, Scope{}, &Env{User: User{ID: "ada", Authenticated: true}}
			clear(refs)
		case line == "```":
			block = false
		case block && example:
			examples++
			if got := outcome(strings.TrimSpace(rule), scope, env, refs); got != result && !strings.Contains(got, strings.TrimPrefix(strings.TrimPrefix(result, "fails: "), "refused: ")) ||
				strings.Split(got, ":")[0] != strings.Split(result, ":")[0] {
				t.Errorf("line %d: %s: got %s, want %s", i+1, rule, got, result)
			}
		case block:
			m := setting.FindStringSubmatch(line)
			if m == nil {
				t.Errorf("line %d: what is %q?", i+1, line)
				continue
			}
			if err := set(&scope, env, refs, m[1], m[2]); err != nil {
				t.Errorf("line %d: %v", i+1, err)
			}
		}
	}
	if examples < 50 {
		t.Errorf("the page has %d examples", examples)
	}
}

func set(scope *Scope, env *Env, refs map[string]string, name, raw string) error {
	switch {
	case name == "data":
		scope.Data, env.Data = true, Unchecked(raw)
	case name == "oldData":
		if scope.OldData, env.OldData = true, Unchecked(raw); raw == "null" {
			env.OldData = Null()
		}
	case name == "name":
		return json.Unmarshal([]byte(raw), &env.Name)
	case name == "now":
		return json.Unmarshal([]byte(raw), &env.Now)
	case name == "action":
		return json.Unmarshal([]byte(raw), &env.Action)
	case name == "user":
		var u struct {
			ID   string
			Data json.RawMessage
		}
		err := json.Unmarshal([]byte(raw), &u)
		env.User = User{ID: u.ID, Authenticated: true, Data: Null()}
		if u.Data != nil {
			env.User.Data = Unchecked(string(u.Data))
		}
		return err
	case name[0] == '$':
		var v string
		scope.Vars = append(scope.Vars, name)
		err := json.Unmarshal([]byte(raw), &v)
		env.Vars = append(env.Vars, v)
		return err
	case strings.HasPrefix(name, "_('"):
		refs[strings.TrimSuffix(name[3:], "')")] = raw
	default:
		return fmt.Errorf("there is no variable %s", name)
	}
	return nil
}

func outcome(rule string, scope Scope, env *Env, refs map[string]string) string {
	r, err := Compile(rule, scope)
	if err != nil {
		return "refused: " + err.Error()
	}
	env.Forget()
	for range 3 {
		var allowed bool
		if allowed, err = r.Eval(env); err == nil {
			return map[bool]string{true: "allows", false: "denies"}[allowed]
		}
		if !errors.Is(err, ErrPending) {
			break
		}
		for _, name := range env.Wanted() {
			if raw, ok := refs[name]; ok {
				env.Answer(name, Unchecked(raw))
			} else {
				env.Answer(name, Null())
			}
		}
	}
	return "fails: " + err.Error()
}
