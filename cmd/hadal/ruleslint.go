package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"hadal/perms"
)

// lintReport is what `hadal rules lint --json` prints.
type lintReport struct {
	File     string          `json:"file"`
	Errors   int             `json:"errors"`
	Warnings int             `json:"warnings"`
	Notes    int             `json:"notes"`
	Findings []perms.Finding `json:"findings"`
}

func newRulesLint() *cobra.Command {
	var from rulesSource
	var asJSON, strict bool
	cmd := &cobra.Command{
		Use:   "lint [FILE]",
		Short: "Find what is wrong or dangerous in a rules file",
		Long: "Find what is wrong or dangerous in a rules file: what falls through to *, paths\n" +
			"and rules that do not mean what they look like, records that can be reset by\n" +
			"deleting them, rules that fail where they should deny. Without FILE, the rules\n" +
			"file of the configuration is looked at; - is standard input.\n\n" +
			"The exit code is 0 when there are at most notes, and 1 with errors or warnings.\n" +
			"docs/rules-lint.md explains every finding.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			report := lintReport{Findings: []perms.Finding{}}
			text, err := from.read(cmd, args, &report.File)
			if err != nil {
				return err
			}
			report.Findings = append(report.Findings, perms.Lint(text)...)
			for _, f := range report.Findings {
				switch f.Severity {
				case perms.Error:
					report.Errors++
				case perms.Warning:
					report.Warnings++
				default:
					report.Notes++
				}
			}
			if asJSON {
				err = printJSON(cmd, report)
			} else {
				err = report.print(cmd.OutOrStdout())
			}
			if err == nil && (report.Errors+report.Warnings > 0 || strict && report.Notes > 0) {
				return errFound
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVarP(&from.config, "config", "c", "", "configuration `file` that names the rules file")
	f.BoolVar(&asJSON, "json", false, "print the findings as JSON")
	f.BoolVar(&strict, "strict", false, "exit with 1 also when there are only notes")
	return cmd
}

// read is the text of the rules file, and its name for people.
func (s *rulesSource) read(cmd *cobra.Command, args []string, name *string) (string, error) {
	if len(args) == 1 {
		if s.config != "" {
			return "", usagef("FILE and --config both name the rules: keep one of them")
		}
		s.file = args[0]
	} else {
		var err error
		if s.file, err = s.find(); err != nil {
			return "", err
		}
	}
	if *name = s.file; s.file == "-" {
		*name = "standard input"
		text, err := io.ReadAll(cmd.InOrStdin())
		return string(text), err
	}
	text, err := os.ReadFile(s.file)
	return string(text), exitWith(exitConfig, err)
}

func (r *lintReport) print(to io.Writer) error {
	var errs []error
	say := func(format string, args ...any) {
		_, err := fmt.Fprintf(to, format, args...)
		errs = append(errs, err)
	}
	for _, f := range r.Findings {
		where := f.Where()
		if where != "" {
			where += ": "
		}
		say("%s:%d:%d: %s: %s%s (%s)\n    means: %s\n    cure: %s\n", r.File, f.Line, f.Column, f.Severity, where, f.Problem, f.ID, f.Effect, f.Cure)
	}
	say("%s: %s, %s, %s\n", r.File, plural(r.Errors, "error"), plural(r.Warnings, "warning"), plural(r.Notes, "note"))
	return errors.Join(errs...)
}
