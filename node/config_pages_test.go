package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the pages about logins and limits configure is a configuration: it is read, valid,
// and a node can be made of it.
func TestTheConfigurationsOfPagesAreTaken(t *testing.T) {
	rules, err := os.ReadFile("../conf/roles.example.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ADMIN_TOKEN", "API_SECRET", "TOKEN_SECRET"} {
		t.Setenv(name, strings.Repeat(name, 4))
	}
	// What a page tells of beside its block: the rest of the file.
	beside := map[string]string{
		"auth-jwt/1":  "auth: [{type: jwt, options: {keys: [{alg: HS256, secret: \"${TOKEN_SECRET}\"}]}}]\n",
		"auth-none/1": "allowOpenFallback: true\n",
	}
	blocks := 0
	for _, page := range []string{"auth-file", "auth-http", "auth-jwt", "auth-none", "auth-storage", "limits", "registration", "roles", "tokens"} {
		text, err := os.ReadFile("../docs/" + page + ".md")
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		write := func(name, text string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("roles.yml", string(rules))
		write("users.yml", "ada: {password: in clear text}\n")
		i := 0
		for _, block := range pageBlock.FindAllStringSubmatch(string(text), -1) {
			language, body := block[1], block[2]
			if language != "yaml" || strings.HasPrefix(body, "# users.yml") {
				continue
			}
			key := page + "/" + string(rune('0'+i))
			i++
			blocks++
			write("config.yml", beside[key]+body)
			cfg, loaded, err := LoadConfig(filepath.Join(dir, "config.yml"), Overrides{})
			if err == nil {
				err = cfg.Validate()
			}
			if err == nil {
				cfg.DataDir = dir
				_, err = New(cfg, slog.New(slog.DiscardHandler))
			}
			if err != nil || len(loaded.Warnings) > 0 {
				t.Errorf("%s: %v, warnings %v:\n%s", key, err, loaded.Warnings, body)
			}
		}
	}
	if blocks < 11 {
		t.Errorf("there are %d configurations, want at least 11", blocks)
	}
}
