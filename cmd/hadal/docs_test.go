package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The pages about the tools are scripts: their yaml blocks are files, named in the
// first line; their console blocks are commands with what they print, in one
// node's data directory; and their comments are traffic.
func TestPagesAboutToolsAreTrue(t *testing.T) {
	dir := t.TempDir()
	for _, page := range []string{"rules-coverage", "rules-shadow"} {
		text, err := os.ReadFile("../../docs/" + page + ".md")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, page+".txtar"), []byte(scriptOf(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			e.Values[nodeKey{}] = &background{}
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"emit": emitEvent, "node": nodeCommand, "printed": expectPrinted,
		},
	})
}

var pagePart = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$|^<!-- (meanwhile: )?(emit .*?) -->$")

// scriptOf makes a script of a page.
func scriptOf(page string) string {
	var script, files strings.Builder
	script.WriteString("node start -c config.yml --port 0 --data-dir data\nnode await 'msg=started'\n")
	files.WriteString("-- config.yml --\npermission: {type: config, options: {permissions: fileLoad(rules.yml)}}\n")
	meanwhile := ""
	for i, m := range pagePart.FindAllStringSubmatch(page, -1) {
		language, body, later, traffic := m[1], m[2], m[3] != "", m[4]
		switch {
		case later:
			meanwhile = traffic
		case traffic != "":
			fmt.Fprintln(&script, traffic)
		case language == "yaml":
			name, rest, _ := strings.Cut(strings.TrimPrefix(body, "# "), "\n")
			fmt.Fprintf(&files, "-- %s --\n%s", name, rest)
		case language == "json":
			fmt.Fprintf(&files, "-- tests.json --\n%s", body)
		case language == "console":
			command, printed, _ := strings.Cut(strings.TrimPrefix(body, "$ "), "\n")
			command, file, into := strings.Cut(command, " > ")
			if !strings.Contains(command, "--merge") {
				command += " --data-dir data"
			}
			if meanwhile != "" { // it finds something, so it fails
				fmt.Fprintf(&script, "! exec %s &other&\nnode await 'candidate rules are tried'\n%s\nwait other\n", command, meanwhile)
				meanwhile = ""
			} else {
				fmt.Fprintf(&script, "exec %s\n", command)
			}
			if into {
				fmt.Fprintf(&script, "cp stdout %s\n", file)
				continue
			}
			fmt.Fprintf(&script, "printed printed%d\n", i)
			fmt.Fprintf(&files, "-- printed%d --\n%s", i, printed)
		}
	}
	return script.String() + files.String()
}

var clock = regexp.MustCompile(`(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d`)

// expectPrinted is `printed FILE`: the last command wrote what is in the file, but for
// times and for blanks in a row.
func expectPrinted(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: printed FILE")
	}
	plain := func(text string) string {
		var lines []string
		for line := range strings.Lines(clock.ReplaceAllString(text, "TIME")) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		return strings.Join(lines, "\n")
	}
	got, want := plain(ts.ReadFile("stderr")+ts.ReadFile("stdout")), plain(ts.ReadFile(args[0]))
	if got != want {
		ts.Fatalf("printed:\n%s\nwant:\n%s", got, want)
	}
}
