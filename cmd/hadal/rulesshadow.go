package main

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"hadal/node"
	"hadal/node/admin"
	"hadal/perms"
)

func newRulesShadow(t *target) *cobra.Command {
	var rules string
	var long time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "shadow --rules FILE",
		Short: "Say what other rules would decide otherwise, on the traffic of a running node",
		Long: "Have a running node judge its traffic by the rules of a file, too, right after those\n" +
			"in force, which alone decide. Each kind of difference is told when it first comes up,\n" +
			"and in the end all of them, with the latest messages that made them, without data.\n" +
			"It ends after --for, or with an interrupt.\n\n" +
			"The exit code is 0 when nothing differed, and 1 when something did, or it failed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if long <= 0 {
				return usagef("--for is %v: name a time, such as 10m", long)
			}
			text, err := candidate(rules)
			if err != nil {
				return exitWith(exitConfig, err)
			}
			return withNode(t, func(cmd *cobra.Command, c *admin.Client, _ []string) error {
				r, err := watchShadow(cmd, c, text, long)
				if err != nil {
					return err
				}
				if asJSON {
					err = printJSON(cmd, r)
				} else {
					err = printShadow(cmd.OutOrStdout(), r)
				}
				if err == nil && r.Different > 0 {
					err = exitWith(exitFailure, errTold)
				}
				return err
			})(cmd, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&rules, "rules", "", "`file` with the rules to try")
	f.DurationVar(&long, "for", 10*time.Minute, "end after this `time`")
	f.BoolVar(&asJSON, "json", false, "print what was found as JSON")
	if err := cmd.MarkFlagRequired("rules"); err != nil {
		panic(err)
	}
	return cmd
}

// candidate is the text of a rules file with its variables put in.
func candidate(path string) (string, error) {
	cfg, err := node.LoadRules(path)
	if err != nil {
		return "", err
	}
	if text, ok := cfg.Options.Permissions.(string); ok {
		return text, nil
	}
	text, err := yaml.Marshal(cfg.Options.Permissions)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	// The node must not try something else than the file says.
	var again any
	if err := yaml.UnmarshalWithOptions(text, &again, yaml.UseOrderedMap()); err != nil {
		return "", fmt.Errorf("%s cannot be sent: %w", path, err)
	}
	if !reflect.DeepEqual(again, cfg.Options.Permissions) {
		return "", fmt.Errorf("%s cannot be sent: it reads otherwise when it is written again", path)
	}
	return string(text), nil
}

// watchShadow has the node try the rules, shows how it goes, and returns what was
// found. An interrupt ends it, and is no error.
func watchShadow(cmd *cobra.Command, c *admin.Client, rules string, long time.Duration) (last perms.ShadowReport, err error) {
	out := cmd.ErrOrStderr()
	f, ok := out.(*os.File)
	watched := ok && term.IsTerminal(int(f.Fd()))
	clearLine := func() {}
	if watched {
		clearLine = func() { _, _ = io.WriteString(out, "\r\x1b[K") }
	}
	began := false
	seen := make(map[string]bool)
	err = c.Shadow(cmd.Context(), rules, long, func(r perms.ShadowReport) error {
		clearLine()
		if !began {
			if _, err := fmt.Fprintf(out, "watching for %v\n", long); err != nil {
				return err
			}
		}
		began, last = true, r
		for _, d := range r.Differences {
			kind := differenceText(d)
			if seen[kind] {
				continue
			}
			seen[kind] = true
			if _, err := fmt.Fprintf(out, "%s, such as %s\n", kind, exampleText(d.Examples[0])); err != nil {
				return err
			}
		}
		if !watched || r.End {
			return nil
		}
		_, err := fmt.Fprintf(out, "%v of %v: %s", seconds(r.Seconds), long, shadowCounts(r))
		return err
	})
	if began && cmd.Context().Err() != nil {
		clearLine()
		return last, nil
	}
	return last, err
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second)
}

// shadowCounts is a report in one line.
func shadowCounts(r perms.ShadowReport) string {
	unknown := uint64(0)
	for _, d := range r.Unknown {
		unknown += d.Count
	}
	return fmt.Sprintf("%d decisions compared, %d different, %d unknown, %d dropped", r.Compared, r.Different, unknown, r.Dropped)
}

func differenceText(d perms.Difference) string {
	text := fmt.Sprintf("%s %s: %s", d.Section, decisionText(d.Active), d.Active.Verdict)
	if a, c := decisionText(d.Active), decisionText(d.Candidate); a != c {
		return text + " → " + c + ": " + d.Candidate.Verdict
	}
	return text + " → " + d.Candidate.Verdict
}

// decisionText is the rule of a decision. Its path stands in the operator's own file.
func decisionText(d perms.Decision) string {
	if d.Path == "" {
		return "(no path) " + d.Rule
	}
	return d.Path + " " + d.Rule
}

// exampleText is a message. Clients choose names, so these are quoted.
func exampleText(e perms.Example) string {
	return fmt.Sprintf("user %q %s %q", e.User, e.Action, e.Name)
}

// printShadow prints a report for people.
func printShadow(to io.Writer, r perms.ShadowReport) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: %s\n", seconds(r.Seconds), shadowCounts(r))
	for _, part := range []struct {
		title string
		list  []perms.Difference
	}{
		{"different", r.Differences},
		{"unknown, because the candidate needs records that the rules in force had not read", r.Unknown},
	} {
		if len(part.list) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n%s:\n", part.title)
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "count\tsection\tin force\t\tcandidate\t")
		for _, d := range part.list {
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", d.Count, d.Section,
				decisionText(d.Active), d.Active.Verdict, decisionText(d.Candidate), d.Candidate.Verdict)
		}
		// A strings.Builder takes everything.
		_ = w.Flush()
		for _, d := range part.list {
			fmt.Fprintf(&b, "\n%s\n", differenceText(d))
			for _, e := range d.Examples {
				fmt.Fprintf(&b, "  %s  %s\n", e.Time.Format(time.TimeOnly), exampleText(e))
			}
		}
	}
	if r.Other > 0 {
		fmt.Fprintf(&b, "\n%d more differ in more ways than are kept\n", r.Other)
	}
	if r.Dropped > 0 {
		fmt.Fprintf(&b, "\n%d decisions were not compared: the candidate had used up its time\n", r.Dropped)
	}
	_, err := io.WriteString(to, b.String())
	return err
}
