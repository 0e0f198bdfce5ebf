package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"hadal/auth/vault"
)

var (
	pageBlock = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")
	// pageVaries is what is another one each time: the end of a token, and when it expires.
	pageVaries = regexp.MustCompile(`(hb~\w+~)[\w-]+|("expiresAt":)\d+`)
)

// The page about registration is a script: its configuration is that of the node, and its
// commands are run, one after the other, and print what it says.
func TestThePageOfRegistrationIsTrue(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatalf("the examples of the page need curl: run make deps (%v)", err)
	}
	page, err := os.ReadFile("../docs/registration.md")
	if err != nil {
		t.Fatal(err)
	}
	const token = "the-operators-token-of-32-bytes-x"
	t.Setenv("ADMIN_TOKEN", token)
	dir := t.TempDir()
	var n *running
	commands := 0
	for _, block := range pageBlock.FindAllStringSubmatch(string(page), -1) {
		switch language, body := block[1], block[2]; language {
		case "yaml":
			file := filepath.Join(dir, "config.yml")
			if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, _, err := LoadConfig(file, Overrides{})
			if err != nil {
				t.Fatal(err)
			}
			n = run(t, func(c *Config) {
				c.Records.Store = "memory"
				c.Auth, c.Registration, c.Admin = cfg.Auth, cfg.Registration, cfg.Admin
			})
			n.vault.Put(vault.NewMemory()) // unless it has one
		case "console":
			commands++
			command, want := commandOf(t, body)
			command = strings.ReplaceAll(command, "localhost:6020", n.Addr().String())
			sh := exec.CommandContext(t.Context(), "sh", "-ec", command)
			sh.Env = []string{"PATH=" + filepath.Dir(curl) + ":/usr/bin:/bin", "ADMIN_TOKEN=" + token, "no_proxy=*"}
			got, err := sh.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", command, err, got)
			}
			if got := pageVaries.ReplaceAllString(string(got), "$1$2…"); strings.TrimSpace(got) != want {
				t.Errorf("%s\nprints %s\nthe page says %s", command, got, want)
			}
		}
	}
	if commands < 7 {
		t.Errorf("the page has %d commands, want at least 7", commands)
	}
}

// commandOf takes a console block apart: the command, which goes on in lines that a
// backslash announces, and what it prints.
func commandOf(t *testing.T, body string) (command, printed string) {
	t.Helper()
	rest, ok := strings.CutPrefix(body, "$ ")
	if !ok {
		t.Fatalf("a console block does not begin with a command: %s", body)
	}
	for {
		line, after, _ := strings.Cut(rest, "\n")
		command, rest = command+fmt.Sprintln(line), after
		if !strings.HasSuffix(line, `\`) {
			return command, strings.TrimSpace(rest)
		}
	}
}
