package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"hadal/perms"
)

// TestExamplesOfTheRulesPages runs what the pages about `hadal rules` show: a yaml
// block that begins with the name of a file is that file, and a console block is
// commands with what they print, to the letter; a last line says another exit code
// than 0. Of json blocks, the first is a question, and the second its answer.
func TestExamplesOfTheRulesPages(t *testing.T) {
	for page, least := range map[string]int{"rules-lint.md": 4, "rules-explain.md": 4, "rules-test.md": 3} {
		t.Run(page, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(t.TempDir())
			commands, question := 0, ""
			for _, block := range regexp.MustCompile("(?ms)^```(yaml|console|json)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
				switch {
				case block[1] == "yaml":
					writeExample(t, block[2])
					continue
				case block[1] == "json" && question == "":
					question = block[2]
					continue
				case block[1] == "json":
					askExample(t, question, block[2])
					continue
				}
				for _, c := range strings.Split("\n"+block[2], "\n$ ")[1:] {
					commands++
					runExample(t, c)
				}
			}
			if commands < least {
				t.Errorf("the page shows %d commands", commands)
			}
		})
	}
}

// writeExample writes a file that the page shows.
func writeExample(t *testing.T, text string) {
	t.Helper()
	m := regexp.MustCompile(`^# (\S+\.yml)`).FindStringSubmatch(text)
	if m == nil {
		return // a part of a file
	}
	if err := os.WriteFile(m[1], []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// askExample asks a question of the rules that the page shows.
func askExample(t *testing.T, question, want string) {
	t.Helper()
	var q perms.Query
	if err := json.Unmarshal([]byte(question), &q); err != nil {
		t.Fatal(err)
	}
	rules, err := (&rulesSource{file: "permissions.yml"}).load()
	if err != nil {
		t.Fatal(err)
	}
	x, err := rules.Explain(t.Context(), q, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(x, "", "  ")
	if err != nil || strings.TrimSpace(string(got)) != strings.TrimSpace(want) {
		t.Errorf("%s is answered\n%s\n(%v), want\n%s", question, got, err, want)
	}
}

func runExample(t *testing.T, example string) {
	t.Helper()
	line, want, _ := strings.Cut(strings.ReplaceAll(example, "\\\n", ""), "\n")
	code := 0
	if before, exit, ok := strings.Cut(want, "(exit code "); ok {
		want = before
		if _, err := fmt.Sscan(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(exit), ")")), &code); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	var args []string
	for _, word := range regexp.MustCompile(`(?:[^\s']|'[^']*')+`).FindAllString(line, -1) {
		args = append(args, strings.ReplaceAll(word, "'", ""))
	}
	var out, errs bytes.Buffer
	got := run(args[1:], strings.NewReader(""), &out, &errs)
	if text := out.String() + errs.String(); got != code || strings.TrimSpace(text) != strings.TrimSpace(want) {
		t.Errorf("$ %s\nprints\n%s\n(exit code %d), want\n%s\n(exit code %d)", line, text, got, want, code)
	}
}

func TestTheLintPageHasEveryFinding(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "rules-lint.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range perms.FindingIDs() {
		if !strings.Contains(string(page), "| `"+id+"` |") {
			t.Errorf("docs/rules-lint.md does not explain %s", id)
		}
	}
}
