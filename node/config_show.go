package node

import (
	_ "embed" // config_default.yml
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

//go:generate go test -run TestReferenceIsCurrent -update .

//go:embed config_default.yml
var defaultYAML []byte

// DefaultYAML is Default as a configuration file, every key with a comment. It is
// generated from the Config structs; the caller may change the bytes.
func DefaultYAML() []byte { return append([]byte(nil), defaultYAML...) }

// hidden stands for a secret.
const hidden = "********"

// Show is c as a configuration file that gives c again, except that secrets
// (passwords, tokens, private keys in the text) are hidden. Keys that are not
// set and have no default are left out.
func (c Config) Show() ([]byte, error) {
	tree, _ := shown(keyPath{}, reflect.ValueOf(c))
	b, err := yaml.MarshalWithOptions(tree, yaml.Indent(2), yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("show configuration: %w", err)
	}
	return b, nil
}

// shown is v as a file would have it; false when there is nothing to show.
func shown(k keyPath, v reflect.Value) (any, bool) {
	if secretKeys[k.pattern] && v.String() != "" && (!keyFiles[k.pattern] || isPEM(v.String())) {
		return hidden, true
	}
	if urlKeys[k.pattern] {
		return literal(withoutSecrets(v.String())), v.String() != ""
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		if unused(k, v) {
			return nil, false
		}
		if x == 0 && k.pattern == "connectionEndpoints.options.unauthenticatedClientTimeout" {
			return false, true
		}
		if x%time.Millisecond != 0 {
			return x.String(), true
		}
		return x.Milliseconds(), true
	case LogLevel:
		return x.String(), true
	case EndpointConfig:
		return shown(k, x.view())
	}
	switch v.Kind() {
	case reflect.Struct:
		tree := yaml.MapSlice{}
		for i := range v.NumField() {
			key := v.Type().Field(i).Tag.Get("yaml")
			if child, ok := shown(k.field(key), v.Field(i)); ok {
				tree = append(tree, yaml.MapItem{Key: key, Value: child})
			}
		}
		return tree, len(tree) > 0
	case reflect.Slice:
		if unused(k, v) {
			return nil, false
		}
		list := []any{}
		for i := range v.Len() {
			child, _ := shown(k.item(i), v.Index(i))
			list = append(list, child)
		}
		return list, true
	case reflect.Map:
		tree := yaml.MapSlice{}
		for _, key := range sortedKeys(v) {
			child, _ := shown(k.member(key), v.MapIndex(reflect.ValueOf(key)))
			tree = append(tree, yaml.MapItem{Key: literal(key), Value: child})
		}
		return tree, len(tree) > 0
	case reflect.Pointer:
		if v.IsNil() {
			return nil, false
		}
		if child, ok := shown(k, v.Elem()); ok {
			return child, true
		}
		return 0, true // set to nothing, which is not the same as not set
	case reflect.Interface:
		return literalTree(v.Interface()), !v.IsNil()
	case reflect.String:
		return literal(v.String()), v.String() != ""
	case reflect.Int:
		return v.Interface(), !unused(k, v)
	default:
		return v.Interface(), true
	}
}

// unused says that a value of a strategy is not set, because it is another strategy that
// has a use for it. Elsewhere 0 and [] are values like any other.
func unused(k keyPath, v reflect.Value) bool {
	return v.IsZero() && strings.HasPrefix(k.pattern, "auth.")
}

// urlKeys are URLs of others' servers, which may hold what those know this one by.
var urlKeys = map[string]bool{"auth.options.endpointUrl": true, "auth.options.jwksUrl": true}

// withoutSecrets is a URL whose user and query, if it has them, are hidden.
func withoutSecrets(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return hidden
	}
	if u.User != nil {
		u.User = url.User(hidden)
	}
	if u.RawQuery != "" {
		u.RawQuery = hidden
	}
	return u.String()
}

// isPEM says whether a value is a certificate or key itself, not its path.
func isPEM(s string) bool { return strings.Contains(s, "-----BEGIN") }

// literal keeps a ${ from being taken for a variable when the text is read again.
func literal(s string) string { return strings.ReplaceAll(s, "${", "$${") }

func literalTree(x any) any {
	switch x := x.(type) {
	case string:
		return literal(x)
	case []any:
		list := make([]any, len(x))
		for i, item := range x {
			list[i] = literalTree(item)
		}
		return list
	case yaml.MapSlice:
		tree := make(yaml.MapSlice, len(x))
		for i, item := range x {
			tree[i] = yaml.MapItem{Key: literalTree(item.Key), Value: literalTree(item.Value)}
		}
		return tree
	default:
		return x
	}
}

// sortedKeys are the keys of a map with string keys.
func sortedKeys(m reflect.Value) []string {
	keys := make([]string, 0, m.Len())
	for _, k := range m.MapKeys() {
		keys = append(keys, k.String())
	}
	slices.Sort(keys)
	return keys
}
