package node

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hadal/auth"
	"hadal/auth/vault"
)

// The page about the HTTP API is a script: its configuration is that of the node, and its
// commands are run, one after the other, and print what it says.
func TestThePageOfTheHTTPAPIIsTrue(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatalf("the examples of the page need curl: run make deps (%v)", err)
	}
	page, err := os.ReadFile("../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	key, hash := auth.NewAPIKey()
	env := map[string]string{"ANN_PASSWORD": "a password", "BILLING_KEY": key, "BILLING_HASH": hash}
	var environ []string
	for name, value := range env {
		t.Setenv(name, value)
		environ = append(environ, name+"="+value)
	}
	environ = append(environ, "PATH="+filepath.Dir(curl)+":/usr/bin:/bin", "no_proxy=*")
	var n *running
	commands := 0
	for _, block := range pageBlock.FindAllStringSubmatch(string(page), -1) {
		switch language, body := block[1], block[2]; language {
		case "yaml":
			file := filepath.Join(t.TempDir(), "config.yml")
			if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, _, err := LoadConfig(file, Overrides{})
			if err != nil {
				t.Fatal(err)
			}
			n = run(t, func(c *Config) {
				c.Records.Store = "memory"
				c.ConnectionEndpoints, c.Auth, c.APIKeys, c.Permission = cfg.ConnectionEndpoints, cfg.Auth, cfg.APIKeys, cfg.Permission
			})
			n.vault.Put(vault.NewMemory()) // unless it has one
		case "console":
			commands++
			command, want := scriptOf(t, body)
			command = strings.ReplaceAll(command, "localhost:6020", n.Addr().String())
			sh := exec.CommandContext(t.Context(), "sh", "-ec", command)
			sh.Env = environ
			got, err := sh.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", command, err, got)
			}
			if strings.TrimSpace(string(got)) != want {
				t.Errorf("%s\nprints %s\nthe page says %s", command, got, want)
			}
		}
	}
	if commands < 8 {
		t.Errorf("the page has %d commands, want at least 8", commands)
	}
}

// scriptOf takes a console block apart, whose last line is what the command prints.
func scriptOf(t *testing.T, body string) (command, printed string) {
	t.Helper()
	rest, ok := strings.CutPrefix(strings.TrimSpace(body), "$ ")
	i := strings.LastIndex(rest, "\n")
	if !ok || i < 0 {
		t.Fatalf("a console block is not a command and what it prints: %s", body)
	}
	return rest[:i], rest[i+1:]
}
