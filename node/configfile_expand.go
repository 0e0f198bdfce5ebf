package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var (
	call       = regexp.MustCompile(`^(file|fileLoad)\((.*)\)$`)
	expression = regexp.MustCompile(`\$?\$\{([^}\n]*)(\}?)`)
	identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// expand is v with its variables and files put in. What they hold is one scalar,
// or the structure of one file: it cannot add keys beside it (spec 13 §1).
func (l *loader) expand(k keyPath, v *value) (*value, error) {
	function, path, err := l.called(v)
	switch {
	case err != nil:
		return nil, err
	case function == "file":
		return &value{src: v.src, line: v.line, col: v.col, text: path, made: true}, nil
	case function == "fileLoad":
		return l.loadFile(k, v, path)
	}
	return l.substitute(v)
}

// called says whether v is file(X) or fileLoad(X), and what X is, from where the
// file stands.
func (l *loader) called(v *value) (function, path string, err error) {
	if v.kind != scalarKind || !v.src.loads || v.made {
		return "", "", nil
	}
	m := call.FindStringSubmatch(strings.TrimSpace(v.text))
	if m == nil {
		return "", "", nil
	}
	arg, err := l.substitute(&value{src: v.src, line: v.line, col: v.col, text: m[2]})
	if err != nil {
		return "", "", err
	}
	if path = strings.TrimSpace(arg.text); path == "" {
		return "", "", v.fail("%s() names no file", m[1])
	}
	return m[1], v.relative(path), nil
}

// relative is a path that v names, from where its source stands.
func (v *value) relative(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(v.src.dir, path)
}

// loadFile is the content of a file that v, the value of k, names: a structure
// for YAML and JSON, with their variables put in later, else its text.
func (l *loader) loadFile(k keyPath, v *value, path string) (*value, error) {
	text, err := readLimited(path)
	if k.pattern == "permission.options.permissions" {
		l.noteRules(path, text, err)
	}
	if err != nil {
		return nil, unread(v, path, err)
	}
	l.addSource(k.shown, path)
	switch filepath.Ext(path) {
	case ".yml", ".yaml", ".json":
		return parseSource(&source{name: path, dir: filepath.Dir(path), text: text, variables: true})
	case ".js", ".cjs", ".mjs", ".ts":
		return nil, v.fail("%s: JavaScript is not run here: save what it exports as YAML or JSON", path)
	}
	return &value{src: v.src, line: v.line, col: v.col, text: text, made: true}, nil
}

// readNamed reads a file; the error points at v, which named it.
func readNamed(v *value, path string) (string, error) {
	text, err := readLimited(path)
	if err != nil {
		return "", unread(v, path, err)
	}
	return text, nil
}

// unread complains of v, which named a file that cannot be read.
func unread(v *value, path string, err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err // without the path, which the sentence has
	}
	return v.fail("%s cannot be read: %v", path, err)
}

// noteRules remembers the file that the rules were to come from.
func (l *loader) noteRules(path, text string, err error) {
	sum := sumOf(text, err)
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	l.loaded.Rules = RulesFile{path, sum}
}

// maxFile is the size that no configuration has, while /dev/zero does.
const maxFile = 64 << 20

// readLimited reads a file of at most maxFile bytes.
func readLimited(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return "", err
	case len(text) > maxFile:
		return "", fmt.Errorf("it is larger than %d MiB", maxFile>>20)
	}
	return string(text), nil
}

// substitute puts variables in the place of ${NAME} and ${NAME:-default}. $${
// is ${ itself.
func (l *loader) substitute(v *value) (*value, error) {
	if v.kind != scalarKind || !v.src.variables || v.made || !strings.Contains(v.text, "${") {
		return v, nil
	}
	var failed error
	text := expression.ReplaceAllStringFunc(v.text, func(s string) string {
		if strings.HasPrefix(s, "$$") {
			return s[1:]
		}
		m := expression.FindStringSubmatch(s)
		name, byDefault, hasDefault := strings.Cut(m[1], ":-")
		if m[2] == "" || !identifier.MatchString(name) {
			failed = v.fail("%s is not a variable: write ${NAME} or ${NAME:-default}, or $${ for ${ itself", s)
			return s
		}
		text, isSet := l.env[name]
		switch {
		case hasDefault && text == "":
			return byDefault
		case !isSet && failed == nil:
			failed = v.fail("the environment variable %s is not set: set it, or give a default with ${%[1]s:-default}", name)
		}
		return text
	})
	if failed != nil {
		return nil, failed
	}
	made := *v
	made.text, made.made = text, true
	return &made, nil
}
