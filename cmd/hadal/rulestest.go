package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hadal/perms"
)

// testReport is what `hadal rules test --json` prints.
type testReport struct {
	Passed int        `json:"passed"`
	Failed int        `json:"failed"`
	Files  []testFile `json:"files"`
}

type testFile struct {
	File  string         `json:"file"`
	Rules string         `json:"rules"`
	Cases []perms.Result `json:"cases"`
}

func newRulesTest() *cobra.Command {
	var from rulesSource
	var asJSON, verbose bool
	cmd := &cobra.Command{
		Use:   "test FILE...",
		Short: "Run test cases for permission rules",
		Long: "Run test cases for permission rules: YAML files that say who does what, and what\n" +
			"is expected. Of a directory all files are taken that end in .test.yml or\n" +
			".test.yaml, also those deeper down. The rules are those that the file of cases\n" +
			"names, or the file beside it that has its name without .test.\n\n" +
			"The exit code is 0 when all pass, and 1 when one does not; then it is explained.\n" +
			"docs/rules-test.md explains how cases are written.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, done := interruptible(cmd)
			defer done()
			report, err := runTests(ctx, &from, args)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd, report)
			} else {
				err = report.print(cmd.OutOrStdout(), verbose)
			}
			if err == nil && report.Failed > 0 {
				return errFound
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&from.file, "rules", "", "rules `file` for all cases, whatever they name")
	f.StringVarP(&from.config, "config", "c", "", "configuration `file` with the rules for all cases")
	f.BoolVar(&asJSON, "json", false, "print all results as JSON")
	f.BoolVarP(&verbose, "verbose", "v", false, "print the cases that pass as well")
	cmd.MarkFlagsMutuallyExclusive("rules", "config")
	return cmd
}

// runTests runs the cases of all files. A mistake in one is an error: it would test
// nothing.
func runTests(ctx context.Context, from *rulesSource, args []string) (*testReport, error) {
	files, err := caseFiles(args)
	if err != nil {
		return nil, err
	}
	report := &testReport{}
	var errs []error
	for _, name := range files {
		file, err := runFile(ctx, from, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		for _, result := range file.Cases {
			if result.Passed {
				report.Passed++
			} else {
				report.Failed++
			}
		}
		report.Files = append(report.Files, *file)
	}
	return report, exitWith(exitConfig, errors.Join(errs...))
}

// caseFiles are the files that args name, and those of the directories among them.
func caseFiles(args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, exitWith(exitConfig, err)
		}
		if !info.IsDir() {
			files = append(files, arg)
			continue
		}
		before := len(files)
		err = filepath.WalkDir(arg, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && isCases(path) {
				files = append(files, path)
			}
			return err
		})
		switch {
		case err != nil:
			return nil, exitWith(exitConfig, err)
		case len(files) == before:
			return nil, exitWith(exitConfig, fmt.Errorf("%s: no file in it ends in .test.yml or .test.yaml", arg))
		}
	}
	return slices.Compact(files), nil
}

func isCases(path string) bool {
	return strings.HasSuffix(path, ".test.yml") || strings.HasSuffix(path, ".test.yaml")
}

// runFile runs the cases of one file.
func runFile(ctx context.Context, from *rulesSource, name string) (*testFile, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	cases, err := perms.ParseCases(string(text))
	if err != nil {
		return nil, err
	}
	use := *from
	switch {
	case use.file+use.config != "":
	case cases.Rules != "":
		use.file = filepath.Join(filepath.Dir(name), cases.Rules)
		if filepath.IsAbs(cases.Rules) {
			use.file = cases.Rules
		}
	case isCases(name):
		ext := filepath.Ext(name)
		use.file = strings.TrimSuffix(name, ".test"+ext) + ext
	default:
		return nil, errors.New("which rules does it test? Say so in it, as rules: permissions.yml, or with --rules")
	}
	rules, err := use.load()
	if err != nil {
		return nil, err
	}
	file := &testFile{File: name, Rules: use.file + use.config}
	for _, c := range cases.List {
		file.Cases = append(file.Cases, rules.Test(ctx, c))
	}
	return file, nil
}

func (r *testReport) print(to io.Writer, verbose bool) error {
	var errs []error
	say := func(format string, args ...any) {
		_, err := fmt.Fprintf(to, format, args...)
		errs = append(errs, err)
	}
	for _, f := range r.Files {
		for _, c := range f.Cases {
			what := strings.TrimSpace(fmt.Sprintf("%s %s by %s", c.Action, c.Name, c.User))
			if c.Title != "" {
				what = c.Title + ": " + what
			}
			switch {
			case !c.Passed:
				say("%s:%d: FAIL %s: %s\n", f.File, c.Line, what, c.Problem)
				if c.Explanation != nil {
					for line := range strings.Lines(c.Explanation.Text()) {
						say("%s\n", strings.TrimRight("    "+line, " \n"))
					}
				}
			case verbose:
				say("%s:%d: pass %s: %s\n", f.File, c.Line, what, c.Got)
			}
		}
	}
	say("%s passed, %d failed\n", plural(r.Passed, "case"), r.Failed)
	return errors.Join(errs...)
}
