package node

import (
	"bytes"
	_ "embed"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write the generated files instead of comparing them")

// The reference and the default file are made from the Config structs and their
// comments, so that neither can say what the code does not.
func TestReferenceIsCurrent(t *testing.T) {
	g := newGenerator(t)
	for path, want := range map[string][]byte{
		"config_default.yml":       g.defaultFile(),
		"../docs/configuration.md": g.reference(),
	} {
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code says: run go generate ./node\n%s", path, cmp.Diff(string(want), string(got)))
		}
	}
}

func TestDefaultFileGivesTheDefaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yml")
	if err := os.WriteFile(path, DefaultYAML(), 0o600); err != nil {
		t.Fatal(err)
	}
	l := newLoader(nil, nil)
	if err := l.readFile(path); err != nil {
		t.Fatal(err)
	}
	if len(l.errs) > 0 || len(l.loaded.Warnings) > 0 {
		t.Errorf("the default file has errors %v and warnings %v, want none", l.errs, l.loaded.Warnings)
	}
	want := Default()
	want.DataDir = filepath.Join(filepath.Dir(path), want.DataDir)
	if diff := cmp.Diff(want, l.config, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the default file is not Default (-want +got):\n%s", diff)
	}
}

// generator knows the comments of the structs that make up Config.
type generator struct {
	t    *testing.T
	docs map[string]map[string]string // "package.Type" → field → comment
	read map[string]bool
}

func newGenerator(t *testing.T) *generator {
	return &generator{t: t, docs: make(map[string]map[string]string), read: make(map[string]bool)}
}

// doc is the comment of a field, with its keys instead of Go's names.
func (g *generator) doc(owner reflect.Type, f reflect.StructField, quote string) string {
	pkg := owner.PkgPath()
	if !g.read[pkg] {
		g.read[pkg] = true
		g.readPackage(pkg)
	}
	text := g.docs[pkg+"."+owner.Name()][f.Name]
	if text == "" {
		g.t.Errorf("%s.%s has no comment", owner, f.Name)
	}
	for i := range owner.NumField() {
		sibling := owner.Field(i)
		if key := sibling.Tag.Get("yaml"); key != "" {
			word := regexp.MustCompile(`\b` + sibling.Name + `\b`)
			text = word.ReplaceAllLiteralString(text, quote+key+quote)
		}
	}
	return text
}

// readPackage takes the comments from one of our packages.
func (g *generator) readPackage(pkg string) {
	dir := filepath.Join("..", strings.TrimPrefix(pkg, "hadal/"))
	files, err := filepath.Glob(filepath.Join(dir, "config*.go"))
	if err != nil || len(files) == 0 {
		g.t.Fatalf("%s has no config*.go (%v)", dir, err)
	}
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			g.t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			st, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			fields := make(map[string]string)
			for _, f := range st.Fields.List {
				for _, name := range f.Names {
					fields[name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
				}
			}
			g.docs[pkg+"."+spec.Name.Name] = fields
			return true
		})
	}
}

// examples are values of structs that stand for the entries of a list or map.
func (g *generator) examples(v reflect.Value) []reflect.Value {
	endpoints, ok := v.Interface().([]EndpointConfig)
	if !ok {
		return []reflect.Value{g.example(v)}
	}
	var all []reflect.Value // whose keys depend on their type
	for i, e := range endpoints {
		if i == 0 || e.Type == typeHTTP {
			all = append(all, e.view())
		}
	}
	return all
}

// example is a value of a struct that stands for the entries of a list or map.
func (g *generator) example(v reflect.Value) reflect.Value {
	if v.Len() > 0 && v.Kind() == reflect.Slice {
		if e, ok := v.Index(0).Interface().(EndpointConfig); ok {
			return e.view()
		}
		return v.Index(0)
	}
	return reflect.New(v.Type().Elem()).Elem()
}

// defaultFile is what DefaultYAML returns.
func (g *generator) defaultFile() []byte {
	var b bytes.Buffer
	b.WriteString("# The configuration of Hadal: every key, with its default. Keep what you change,\n" +
		"# delete the rest. Reference: docs/configuration.md\n")
	g.section(&b, keyPath{}, reflect.ValueOf(Default()), "")
	return b.Bytes()
}

func (g *generator) section(b *bytes.Buffer, k keyPath, v reflect.Value, indent string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key := f.Tag.Get("yaml")
		at := k.field(key)
		if indent == "" {
			b.WriteByte('\n')
		}
		comment(b, indent, g.doc(v.Type(), f, ""))
		if why := unreadKeys[at.pattern]; why != "" {
			comment(b, indent, "Ignored: "+why+".")
			fmt.Fprintf(b, "%s# %s: %v\n", indent, key, scalar(g.t, at, v.Field(i)))
			continue
		}
		value := v.Field(i)
		switch {
		case value.Kind() == reflect.Struct:
			if isEmpty(value) {
				var inner bytes.Buffer
				g.section(&inner, at, value, indent+"  ")
				fmt.Fprintf(b, "%s%s:\n%s", indent, key, inner.String())
				continue
			}
			fmt.Fprintf(b, "%s%s:\n", indent, key)
			g.section(b, at, value, indent+"  ")
		case value.Kind() == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct:
			fmt.Fprintf(b, "%s%s:\n", indent, key)
			var entry bytes.Buffer
			g.section(&entry, at, g.example(value), indent+"    ")
			// The dash stands before the entry's first key, not its comment.
			text := strings.Replace(entry.String(), "\n"+indent+"    type:", "\n"+indent+"  - type:", 1)
			b.WriteString(text)
			g.further(b, at, value, indent+"    ")
		default:
			if unused(at, value) || value.IsZero() && value.Kind() != reflect.Bool && value.Kind() != reflect.Slice && value.Type() != reflect.TypeFor[LogLevel]() {
				fmt.Fprintf(b, "%s# %s:\n", indent, key)
				continue
			}
			fmt.Fprintf(b, "%s%s: %s\n", indent, key, scalar(g.t, at, value))
		}
	}
}

// further writes the entries of a list after the first: what they have that it has not.
func (g *generator) further(b *bytes.Buffer, k keyPath, list reflect.Value, indent string) {
	for i := 1; i < list.Len(); i++ {
		var entry bytes.Buffer
		if e, ok := list.Index(i).Interface().(EndpointConfig); ok && e.Type == typeHTTP {
			g.section(&entry, k, e.view(), indent)
			b.WriteString(strings.Replace(entry.String(), "\n"+indent+"type:", "\n"+strings.TrimSuffix(indent, "  ")+"- type:", 1))
			continue
		}
		g.differences(&entry, k, list.Index(0), list.Index(i), indent)
		comment(b, indent, "The rest of this one is as above.")
		b.WriteString(strings.Replace(entry.String(), indent, strings.TrimSuffix(indent, "  ")+"- ", 1))
	}
}

func (g *generator) differences(b *bytes.Buffer, k keyPath, first, other reflect.Value, indent string) {
	for i := range other.NumField() {
		key := other.Type().Field(i).Tag.Get("yaml")
		at, a, o := k.field(key), first.Field(i), other.Field(i)
		switch {
		case reflect.DeepEqual(a.Interface(), o.Interface()):
		case o.Kind() == reflect.Struct:
			fmt.Fprintf(b, "%s%s:\n", indent, key)
			g.differences(b, at, a, o, indent+"  ")
		default:
			fmt.Fprintf(b, "%s%s: %s\n", indent, key, scalar(g.t, at, o))
		}
	}
}

// isEmpty says that nothing in a section has a default.
func isEmpty(v reflect.Value) bool { return v.IsZero() }

// scalar is a default as YAML has it.
func scalar(t *testing.T, k keyPath, v reflect.Value) string {
	if d, ok := v.Interface().(time.Duration); ok {
		return fmt.Sprint(d.Milliseconds())
	}
	x, _ := shown(k, v)
	b, err := yaml.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func comment(b *bytes.Buffer, indent, text string) {
	line := indent + "#"
	for _, w := range strings.Fields(text) {
		if len(line)+1+len(w) > 88 && line != indent+"#" {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + w
	}
	b.WriteString(line + "\n")
}

//go:embed testdata/config/reference.md
var referenceText string

// reference is docs/configuration.md: its text, with tables in the place of
// lines like {{keys}}.
func (g *generator) reference() []byte {
	text := referenceText
	for mark, table := range map[string]func() string{
		"{{keys}}":      g.keyTables,
		"{{ignored}}":   func() string { return foreignTable(false) },
		"{{refused}}":   func() string { return foreignTable(true) },
		"{{unread}}":    unreadTable,
		"{{endpoints}}": endpointTable,
	} {
		if !strings.Contains(text, mark) {
			g.t.Errorf("reference.md has no place for %s", mark)
		}
		text = strings.Replace(text, mark, strings.TrimRight(table(), "\n"), 1)
	}
	return []byte(text)
}

// keyTables has one table for all keys without a section, and one a section.
func (g *generator) keyTables() string {
	type section struct {
		title string
		rows  []string
	}
	general := &section{title: "General"}
	sections := []*section{general}
	root := reflect.ValueOf(Default())
	for i := range root.NumField() {
		f := root.Type().Field(i)
		k := keyPath{}.field(f.Tag.Get("yaml"))
		var rows []string
		g.rows(&rows, k, root.Type(), f, root.Field(i), true)
		if len(rows) == 1 {
			general.rows = append(general.rows, rows...)
			continue
		}
		sections = append(sections, &section{title: "`" + k.shown + "`: " + g.doc(root.Type(), f, "`"), rows: rows})
	}
	var b strings.Builder
	for _, s := range sections {
		title, text, _ := strings.Cut(s.title, ": ")
		fmt.Fprintf(&b, "### %s\n\n", title)
		if text != "" {
			fmt.Fprintf(&b, "%s\n\n", text)
		}
		b.WriteString("| key | type | default | environment | what it is |\n|---|---|---|---|---|\n")
		for _, r := range s.rows {
			b.WriteString(r)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// rows are the lines of a table for a key and those in it.
func (g *generator) rows(rows *[]string, k keyPath, owner reflect.Type, f reflect.StructField, v reflect.Value, whole bool) {
	if v.Kind() == reflect.Struct {
		for i := range v.NumField() {
			f := v.Type().Field(i)
			g.rows(rows, k.field(f.Tag.Get("yaml")), v.Type(), f, v.Field(i), whole)
		}
		return
	}
	env, byDefault := "", "–"
	if whole {
		env = "`" + configKey{path: k.pattern}.env() + "`"
	}
	inner := v.Kind() == reflect.Slice || v.Kind() == reflect.Map
	inner = inner && v.Type().Elem().Kind() == reflect.Struct
	zero := v.IsZero() && v.Kind() != reflect.Bool && v.Type() != reflect.TypeFor[LogLevel]()
	if !zero && !inner {
		byDefault = "`" + scalar(g.t, k, v) + "`"
	}
	doc := g.doc(owner, f, "`")
	if why := unreadKeys[k.pattern]; why != "" {
		doc += " Ignored with a warning: " + why + "."
	}
	*rows = append(*rows, fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n",
		k.shown, typeName(k, v.Type()), byDefault, env, strings.ReplaceAll(doc, "|", `\|`)))
	if !inner {
		return
	}
	entry := k
	if v.Kind() == reflect.Slice {
		entry.shown += "[]"
	} else {
		entry = keyPath{k.shown + ".<name>", k.pattern + ".*"}
	}
	for i, example := range g.examples(v) {
		var of []string
		g.rows(&of, entry, nil, reflect.StructField{}, example, false)
		if i > 0 {
			of = of[1:] // its type
		}
		*rows = append(*rows, of...)
	}
}

// typeName is a type as the reference calls it.
func typeName(k keyPath, t reflect.Type) string {
	switch {
	case t == durationType:
		return "duration"
	case t == levelType:
		return "level"
	case byteKeys[k.pattern]:
		return "bytes"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64:
		return "number"
	case reflect.String:
		return "text"
	case reflect.Pointer:
		return typeName(k, t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return "list of texts"
		}
		return "list"
	case reflect.Map:
		return "mapping"
	default:
		return "any"
	}
}

func foreignTable(refused bool) string {
	var rows []string
	for key, f := range foreignKeys {
		if f.refused == refused {
			rows = append(rows, fmt.Sprintf("| `%s` | %s |\n", key, f.why))
		}
	}
	slices.Sort(rows)
	return "| key | why |\n|---|---|\n" + strings.Join(rows, "")
}

func unreadTable() string {
	var rows []string
	for key, why := range unreadKeys {
		rows = append(rows, fmt.Sprintf("| `%s` | %s |\n", key, why))
	}
	slices.Sort(rows)
	return strings.Join(rows, "")
}

func endpointTable() string {
	var rows []string
	for name, what := range foreignEndpoints {
		rows = append(rows, fmt.Sprintf("| `connectionEndpoints[].type: %s` | %s is not in this version |\n", name, what))
	}
	slices.Sort(rows)
	return strings.Join(rows, "")
}
