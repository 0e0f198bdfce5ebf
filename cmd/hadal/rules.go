package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"hadal/node"
	"hadal/perms"
)

func newRules() *cobra.Command {
	t := &target{}
	coverage, shadow := newRulesCoverage(t), newRulesShadow(t)
	t.flags(coverage)
	t.flags(shadow)
	return group(&cobra.Command{
		Use:   "rules",
		Short: "Check, explain, test and watch permission rules",
		Long: "Check, explain, test and watch permission rules. Lint, test and matrix work on\n" +
			"files, coverage and shadow ask a running node, explain does either.",
	}, newRulesLint(), newRulesExplain(), newRulesTest(), newRulesMatrix(), coverage, shadow)
}

// rulesSource is where a command takes its rules from.
type rulesSource struct {
	file, config string
}

// load compiles the rules of the file, or else of the configuration.
func (s *rulesSource) load() (*perms.Rules, error) {
	cfg := perms.DefaultConfig()
	cfg.Type, cfg.Options.Path = "config", s.file
	if s.file == "" {
		all, _, err := node.LoadConfig(s.config, node.Overrides{})
		if err != nil {
			return nil, exitWith(exitConfig, err)
		}
		cfg = all.Permission
	}
	rules, err := perms.New(cfg)
	return rules, exitWith(exitConfig, err)
}

// find is the rules file that the configuration names, also if it is wrong.
func (s *rulesSource) find() (string, error) {
	cfg, loaded, err := node.LoadConfig(s.config, node.Overrides{})
	for _, source := range loaded.Sources {
		if strings.HasPrefix(source.Key, "permission.options.") {
			return shorter(source.Path), nil
		}
	}
	switch {
	case err != nil:
		return "", exitWith(exitConfig, err)
	case cfg.Permission.Type == "none":
		return "", usagef("%s has permission.type none, so there are no rules: name a rules file", source(loaded))
	}
	return "", usagef("the rules stand in %s itself: name a rules file", source(loaded))
}

// shorter is a path as seen from here, if that is shorter.
func shorter(path string) string {
	here, err := filepath.Abs(".")
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(here, path); err == nil && len(rel) < len(path) {
		return rel
	}
	return path
}

// document is a flag's value as JSON, or nothing where it is not given.
func document(flag, text string) (json.RawMessage, error) {
	switch {
	case text == "":
		return nil, nil
	case !json.Valid([]byte(text)):
		return nil, usagef(`%s: %s is not JSON: text needs quotes of its own, as in '"text"'`, flag, text)
	}
	return json.RawMessage(text), nil
}

// errFound ends a command that has told what it found.
var errFound = exitWith(exitFailure, errTold)

// plural is "1 case" or "2 cases".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
