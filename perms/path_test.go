package perms

import (
	"regexp"
	"strings"
	"testing"
)

func TestPathsMatchWholeNames(t *testing.T) {
	for _, c := range []struct {
		path     string
		yes, not []string
	}{
		{"*", []string{"", "a", "a/b", "ü\n/"}, nil},
		{"a/b", []string{"a/b"}, []string{"", "a/b/", "xa/b", "a/bx"}},
		{"v/x.y", []string{"v/x.y"}, []string{"v/xzy"}},
		{"a(b[c{d|e+f?^g\\", []string{"a(b[c{d|e+f?^g\\"}, []string{"a", "ab"}},
		{"a/*", []string{"a/", "a/b", "a/b/c", "a/\n"}, []string{"a", "b/a/"}},
		{"*/z", []string{"/z", "a/b/z"}, []string{"z", "/za"}},
		{"ab*ba", []string{"abba", "abxba"}, []string{"aba", "ab", "abbab"}},
		{"a*b*c", []string{"abc", "a/b/c", "axbxbxc"}, []string{"acb", "ab", "abcd"}},
		{"**", []string{"", "a/b"}, nil},
		{"u/$id", []string{"u/1", "u/ü", "u/\n", "u/$id"}, []string{"u/", "u/a/b", "u"}},
		{"$id", []string{"a", "*"}, []string{"", "a/b", "/"}},
		{"$id/", []string{"a/"}, []string{"/", "a"}},
		{"u/$id/x", []string{"u/1/x"}, []string{"u//x", "u/1/2/x", "u/x"}},
		{"$a-$b", []string{"x-y", "x-y-z", "--x"}, []string{"-", "x-", "-y", "a/b-c"}},
		{"$a$b", []string{"xy"}, []string{"x", ""}},
		{"$a/*", []string{"x/", "x/y/z"}, []string{"x", "/y"}},
		{"$ab.c", []string{"1.c", "1b.c"}, []string{".c", "1c"}},
		{"x$1", []string{"x9"}, []string{"x"}},
	} {
		p, err := compilePath(c.path)
		if err != nil {
			t.Errorf("%q: %v", c.path, err)
			continue
		}
		for _, name := range c.yes {
			if !p.matches(name) {
				t.Errorf("%q does not match %q", c.path, name)
			}
		}
		for _, name := range c.not {
			if p.matches(name) {
				t.Errorf("%q matches %q", c.path, name)
			}
		}
	}
}

func TestBrokenPathsAreRefusedWithTheCure(t *testing.T) {
	for path, want := range map[string]string{
		"":        "is empty",
		"/a":      "begins with a slash",
		"ü$/a":    "a $ at character 2",
		"a$":      "name the variable",
		"$$a":     "a $ at character 1",
		"$ü":      "a $ at character 1",
		"a\xff":   "not UTF-8",
		"$a/$_id": "a $ at character 4",
	} {
		if _, err := compilePath(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", path, err, want)
		}
	}
}

// FuzzPathsMatchAsTheirExpression compares with a regular expression made in
// the plainest way.
func FuzzPathsMatchAsTheirExpression(f *testing.F) {
	for _, path := range []string{"*", "a/b", "u/$id", "$a-$b/*", "a*b", "$x$y", "\\E*"} {
		f.Add(path, "u/1")
		f.Add(path, "x-y/z")
	}
	wild := regexp.MustCompile(`\*|\$[0-9A-Za-z]+`)
	f.Fuzz(func(t *testing.T, text, name string) {
		p, err := compilePath(text)
		if err != nil {
			return
		}
		expr, rest := `\A`, text
		for rest != "" {
			at := wild.FindStringIndex(rest)
			if at == nil {
				at = []int{len(rest), len(rest)}
			}
			expr += regexp.QuoteMeta(rest[:at[0]])
			switch {
			case at[0] == at[1]:
			case rest[at[0]] == '*':
				expr += `(?s:.*)`
			default:
				expr += `[^/]+`
			}
			rest = rest[at[1]:]
		}
		re, err := regexp.Compile(expr + `\z`)
		if err != nil {
			return // larger than the package takes
		}
		// Invalid UTF-8 is no concern here: the codec refuses it in names.
		name = strings.ToValidUTF8(name, "")
		if got, want := p.matches(name), re.MatchString(name); got != want {
			t.Errorf("%q matches %q: got %v, want %v", text, name, got, want)
		}
	})
}
