package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"hadal/auth"
)

// loginPassword is what is typed where a page asks for a password.
const loginPassword = "a long secret"

// The pages about logins are scripts too: what they have typed is typed, one after the
// other, and prints what they say. docs/registration.md has its test in package node.
func TestPagesAboutLoginsAreTrue(t *testing.T) {
	dir := t.TempDir()
	hash, err := auth.HashArgon2id(loginPassword)
	if err != nil {
		t.Fatal(err)
	}
	var export strings.Builder
	for i := range 1200 { // as many as the page says
		fmt.Fprintf(&export, `{"username":"user%d","password":%q,"clientData":null,"serverData":null}`+"\n", i, hash)
	}
	for page, commands := range map[string]int{"auth-file": 2, "auth-storage": 4, "roles": 1} {
		text, err := os.ReadFile("../../docs/" + page + ".md")
		if err != nil {
			t.Fatal(err)
		}
		script, n := loginScript(string(text), hash)
		if n != commands {
			t.Errorf("docs/%s.md has %d commands, want %d", page, n, commands)
		}
		script += "-- psql.out --\n" + export.String()
		if err := os.WriteFile(filepath.Join(dir, page+".txtar"), []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rules, err := os.ReadFile("../../conf/roles.example.yml")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			e.Values[nodeKey{}] = &background{}
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			if err := os.Mkdir(filepath.Join(e.WorkDir, "conf"), 0o700); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(e.WorkDir, "conf", "roles.example.yml"), rules, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"node": nodeCommand, "says": expectSaid},
	})
}

var (
	namedYAML = regexp.MustCompile("(?ms)^```yaml\n# (\\w+\\.yml)\n(.*?)^```$")
	consoles  = regexp.MustCompile("(?ms)^```console\n(.*?)^```$")
	// shownHash is a hash as pages have it, cut off.
	shownHash = regexp.MustCompile(`\$argon2id[^"\s]*…`)
	uuid      = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
)

// loginScript makes a script of a page, and counts its commands.
func loginScript(page, hash string) (script string, commands int) {
	var steps, files strings.Builder
	for _, m := range namedYAML.FindAllStringSubmatch(page, -1) {
		fmt.Fprintf(&files, "-- %s --\n%s", m[1], shownHash.ReplaceAllLiteralString(m[2], hash))
	}
	fmt.Fprintf(&files, "-- typed --\n%s\n", loginPassword)
	for _, m := range consoles.FindAllStringSubmatch(page, -1) {
		for _, typed := range strings.Split("\n"+m[1], "\n$ ")[1:] {
			commands++
			command, printed, _ := strings.Cut(typed, "\n")
			command = strings.TrimSuffix(command, " &")
			if strings.HasPrefix(command, "hadal start") {
				fmt.Fprintf(&steps, "node start %s --port 0\nnode await 'msg=started'\n", strings.TrimPrefix(command, "hadal start "))
				continue
			}
			stdin := "typed"
			if _, into, ok := strings.Cut(command, " | "); ok {
				stdin, command = "psql.out", into
			}
			// Who has no terminal is not asked.
			printed = strings.Replace(printed, "Password:\nOnce more:\n", "", 1)
			fmt.Fprintf(&steps, "stdin %s\nexec %s\n", stdin, command)
			if strings.TrimSpace(printed) != "" {
				fmt.Fprintf(&steps, "says said%d\n", commands)
				fmt.Fprintf(&files, "-- said%d --\n%s\n", commands, printed)
			}
		}
	}
	return steps.String() + files.String(), commands
}

// expectSaid is `says FILE`: the last command printed what is in the file, whatever ids and
// hashes.
func expectSaid(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: says FILE")
	}
	plain := func(text string) string {
		text = uuid.ReplaceAllString(text, "ID")
		text = regexp.MustCompile(`(\$argon2id\$v=\d+\$m=\d+,t=\d+,p=\d+\$)\S+`).ReplaceAllString(text, "$1…")
		return strings.Join(strings.Fields(text), " ")
	}
	if got, want := plain(ts.ReadFile("stderr")+ts.ReadFile("stdout")), plain(ts.ReadFile(args[0])); got != want {
		ts.Fatalf("printed %s\nwant %s", got, want)
	}
}
