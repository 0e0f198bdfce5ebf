package node

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml"
)

// keyPath names a key twice: as a reader sees it (auth[1].options.users.ann) and
// as the tables of configfile_keys.go have it (auth.options.users.*).
type keyPath struct{ shown, pattern string }

func (k keyPath) field(name string) keyPath {
	if k.pattern == "" {
		return keyPath{name, name}
	}
	return keyPath{k.shown + "." + name, k.pattern + "." + name}
}

func (k keyPath) item(i int) keyPath {
	return keyPath{fmt.Sprintf("%s[%d]", k.shown, i), k.pattern}
}

func (k keyPath) member(name string) keyPath {
	return keyPath{k.shown + "." + name, k.pattern + ".*"}
}

// rematchOff is the greatest listen.rematchInterval that means "never".
const rematchOff = time.Second

// decodeRoot overlays the whole configuration with v.
func (l *loader) decodeRoot(v *value) {
	if v.isNull() {
		return
	}
	l.decode(keyPath{}, v, reflect.ValueOf(&l.config).Elem())
}

// set overlays one key of the configuration with v. Where the key stands in
// Config may differ from where it stands in the file.
func (l *loader) set(where string, k keyPath, v *value) {
	into := reflect.ValueOf(&l.config).Elem()
	rest := where
	for rest != "" {
		var name string
		name, rest, _ = strings.Cut(rest, ".")
		name, index, isItem := strings.Cut(strings.TrimSuffix(name, "]"), "[")
		into = into.FieldByIndex(fieldOf(into.Type(), name).Index)
		if isItem {
			i, _ := strconv.Atoi(index) // our own, from keyPath.item
			into = into.Index(i)
		}
	}
	l.forget(k.shown)
	l.decode(k, v, into)
}

// fieldOf is the field of a struct with a key; the zero StructField if none.
func fieldOf(t reflect.Type, key string) reflect.StructField {
	for i := range t.NumField() {
		if f := t.Field(i); f.Tag.Get("yaml") == key {
			return f
		}
	}
	return reflect.StructField{}
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	levelType    = reflect.TypeFor[LogLevel]()
)

// decode puts v into a part of the configuration. Nothing (null, or a key with
// nothing behind it) leaves the default, as a section whose lines are all
// commented out should. Mistakes are added to l.errs.
func (l *loader) decode(k keyPath, v *value, into reflect.Value) {
	l.places[k.shown] = v
	if special, ok := specialKeys[k.pattern]; ok {
		special(l, k, v, into)
		return
	}
	if why, ok := unreadKeys[k.pattern]; ok && !v.isNull() {
		l.warn(v, "%s: ignored: %s", k.shown, why)
	}
	l.decodeValue(k, v, into)
}

// decodeValue is decode for keys that mean what their type says.
func (l *loader) decodeValue(k keyPath, v *value, into reflect.Value) {
	v, err := l.expand(k, v)
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	if v.isNull() {
		return
	}
	switch into.Type() {
	case durationType:
		l.decodeDuration(k, v, into)
		return
	case levelType:
		if level, err := ParseLogLevel(v.text); err != nil || v.kind != scalarKind {
			l.expected(k, v, "a log level: debug (0), info (1), warn (2), error (3) or off (100)")
		} else {
			into.SetInt(int64(level))
		}
		return
	}
	switch into.Kind() {
	case reflect.Bool:
		if b, ok := v.bare().(bool); ok {
			into.SetBool(b)
			return
		}
		l.expected(k, v, "true or false")
	case reflect.Int, reflect.Int64:
		l.decodeInteger(k, v, into)
	case reflect.String:
		l.decodeString(k, v, into)
	case reflect.Pointer:
		p := reflect.New(into.Type().Elem())
		l.decodeValue(k, v, p.Elem())
		into.Set(p)
	case reflect.Interface:
		if v.kind != scalarKind {
			l.places[k.shown] = v // in the file that it was loaded from
		}
		x, err := l.free(v)
		if err != nil {
			l.errs = append(l.errs, err)
			return
		}
		into.Set(reflect.ValueOf(x))
	case reflect.Struct:
		l.decodeStruct(k, v, into)
	case reflect.Slice:
		l.decodeList(k, v, into)
	case reflect.Map:
		l.decodeMap(k, v, into)
	default:
		panic("config: no way to read a " + into.Type().String())
	}
}

// expected complains that v is of another type, without showing a secret.
func (l *loader) expected(k keyPath, v *value, what string) {
	found := v.describe()
	if secretKeys[k.pattern] {
		found = "something else"
	}
	l.fail(k, v, "%s is expected here, but this is %s", what, found)
}

// bare is what v means, where the text of a variable counts as if it stood
// without quotes, because in JSON it cannot.
func (v *value) bare() any {
	if v.kind != scalarKind {
		return v
	}
	b := *v
	b.plain = v.plain || v.made
	return b.resolve()
}

func (l *loader) decodeDuration(k keyPath, v *value, into reflect.Value) {
	var d time.Duration
	switch x := v.bare().(type) {
	case int64:
		if x > math.MaxInt64/int64(time.Millisecond) || x < math.MinInt64/int64(time.Millisecond) {
			l.fail(k, v, "%d milliseconds are more than can be counted", x)
			return
		}
		d = time.Duration(x) * time.Millisecond
	case string:
		var err error
		if d, err = time.ParseDuration(x); err != nil {
			l.expected(k, v, "a duration, in milliseconds (500) or with a unit (30s, 5m)")
			return
		}
	default:
		l.expected(k, v, "a duration, in milliseconds (500) or with a unit (30s, 5m)")
		return
	}
	into.SetInt(int64(d))
}

// byteSize is a number of bytes with its unit.
var byteSize = regexp.MustCompile(`^([0-9]+) ?([kKmMgG])(i?[bB])?$`)

func (l *loader) decodeInteger(k keyPath, v *value, into reflect.Value) {
	what := "a whole number"
	if byteKeys[k.pattern] {
		what = "a number of bytes (1048576, 1MiB)"
	}
	var n int64
	switch x := v.bare().(type) {
	case int64:
		n = x
	case string:
		m := byteSize.FindStringSubmatch(x)
		if m == nil || !byteKeys[k.pattern] {
			l.expected(k, v, what)
			return
		}
		unit := int64(1) << map[string]int{"k": 10, "m": 20, "g": 30}[strings.ToLower(m[2])]
		count, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil || count > math.MaxInt64/unit {
			l.fail(k, v, "%s are more bytes than can be counted", x)
			return
		}
		n = count * unit
	default:
		l.expected(k, v, what)
		return
	}
	if into.OverflowInt(n) {
		l.fail(k, v, "%d is too large", n)
		return
	}
	into.SetInt(n)
}

func (l *loader) decodeString(k keyPath, v *value, into reflect.Value) {
	if v.kind == scalarKind {
		if _, ok := v.resolve().(string); ok || v.made {
			into.SetString(v.text)
			return
		}
		l.expected(k, v, "a text (in quotes, if it looks like a number)")
		return
	}
	l.expected(k, v, "a text")
}

func (l *loader) decodeList(k keyPath, v *value, into reflect.Value) {
	if v.kind != listKind {
		l.expected(k, v, "a list")
		return
	}
	list := reflect.MakeSlice(into.Type(), len(v.items), len(v.items))
	for i, item := range v.items {
		l.decode(k.item(i), item, list.Index(i))
	}
	into.Set(list)
}

func (l *loader) decodeMap(k keyPath, v *value, into reflect.Value) {
	if v.kind != dictKind {
		l.expected(k, v, "a mapping")
		return
	}
	m := reflect.MakeMapWithSize(into.Type(), len(v.entries))
	for _, e := range v.entries {
		name, err := l.substitute(e.key)
		if err != nil {
			l.errs = append(l.errs, err)
			continue
		}
		key := reflect.ValueOf(name.text)
		if m.MapIndex(key).IsValid() {
			l.fail(k, e.key, "%q stands here twice", name.text)
			continue
		}
		item := reflect.New(into.Type().Elem()).Elem()
		l.decode(k.member(name.text), e.value, item)
		m.SetMapIndex(key, item)
	}
	into.Set(m)
}

func (l *loader) decodeStruct(k keyPath, v *value, into reflect.Value) {
	if v.kind != dictKind {
		l.expected(k, v, "a mapping")
		return
	}
	for _, e := range v.entries {
		at := k.field(e.key.text)
		if f := fieldOf(into.Type(), e.key.text); f.Index != nil && e.key.text != "" {
			l.decode(at, e.value, into.FieldByIndex(f.Index))
			continue
		}
		if foreign, ok := foreignKeys[at.pattern]; ok {
			l.foreign(at, e, foreign)
			continue
		}
		if extra, ok := extraKeys[at.pattern]; ok {
			l.places[at.shown] = e.value
			extra(l, at, e.value)
			continue
		}
		l.unknown(k, e.key, into.Type())
	}
}

// foreign deals with a key of deepstream's that has no meaning here.
func (l *loader) foreign(k keyPath, e entry, f foreignKey) {
	if e.value.isNull() {
		return // as good as not there
	}
	if f.refused {
		l.fail(k, e.key, "%s", f.why)
		return
	}
	l.warn(e.key, "%s: ignored: %s", k.shown, f.why)
}

// unknown complains about a key and offers the nearest one.
func (l *loader) unknown(k keyPath, key *value, t reflect.Type) {
	shown := k.field(key.text).shown
	text := fmt.Sprintf("%s: there is no such key", shown)
	near := nearest(key.text, keysIn(k.pattern, t))
	if near == "" { // perhaps it is in the wrong section
		for _, other := range configKeys("", reflect.TypeFor[Config]()) {
			if strings.HasSuffix(strings.ToLower(other.path), "."+strings.ToLower(key.text)) {
				near = other.path
				break
			}
		}
	}
	if near != "" {
		text += fmt.Sprintf(": did you mean %s?", near)
	}
	l.errs = append(l.errs, key.fail("%s", text))
}

// keysIn lists every key that a section knows.
func keysIn(pattern string, t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "" {
			keys = append(keys, key)
		}
	}
	if pattern != "" {
		pattern += "."
	}
	add := func(full string) {
		if key, ok := strings.CutPrefix(full, pattern); ok && !strings.Contains(key, ".") {
			keys = append(keys, key)
		}
	}
	for full := range foreignKeys {
		add(full)
	}
	for full := range extraKeys {
		add(full)
	}
	slices.Sort(keys)
	return keys
}

// nearest is the word most like got, or empty when none is much like it.
func nearest(got string, words []string) string {
	const longest = 64 // more is no typing mistake, and comparing costs its square
	if len(got) > longest {
		return ""
	}
	best, least := "", max(2, len(got)/3)+1
	for _, w := range words {
		if d := levenshtein.ComputeDistance(strings.ToLower(got), strings.ToLower(w)); d < least {
			best, least = w, d
		}
	}
	return best
}

// free is v as plain Go values: nil, bool, numbers, string, []any, and
// yaml.MapSlice, which keeps the order of keys (of two equally long paths in
// permissions, the later one counts).
func (l *loader) free(v *value) (any, error) {
	switch v.kind {
	case scalarKind:
		v, err := l.substitute(v)
		if err != nil {
			return nil, err
		}
		return v.resolve(), nil
	case listKind:
		list := make([]any, 0, len(v.items))
		for _, item := range v.items {
			x, err := l.expandFree(item)
			if err != nil {
				return nil, err
			}
			list = append(list, x)
		}
		return list, nil
	}
	m := make(yaml.MapSlice, 0, len(v.entries))
	seen := make(map[string]bool, len(v.entries))
	for _, e := range v.entries {
		name, err := l.substitute(e.key)
		if err != nil {
			return nil, err
		}
		if seen[name.text] {
			return nil, e.key.fail("%q stands here twice", name.text)
		}
		seen[name.text] = true
		x, err := l.expandFree(e.value)
		if err != nil {
			return nil, err
		}
		m = append(m, yaml.MapItem{Key: name.text, Value: x})
	}
	return m, nil
}

// expandFree is free for what may still be file(X) or fileLoad(X).
func (l *loader) expandFree(v *value) (any, error) {
	v, err := l.expand(keyPath{}, v)
	if err != nil {
		return nil, err
	}
	return l.free(v)
}
