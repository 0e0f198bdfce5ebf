package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"hadal/node"
	"hadal/node/admin"
)

func newRecordsVerify(t *target) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check the data directory of a node that does not run",
		Long: "Check the data directory of a node that does not run: every block file, every\n" +
			"message in it with its checksums, the log's chain, what was acknowledged, and that\n" +
			"all data is JSON. Nothing is written and nothing is mended: a node that is started\n" +
			"on damaged files may cut them off, so verify first, or a copy.\n\n" +
			"It says how many records there are, and of each problem where it is and what to\n" +
			"do. Exit code 0: no damage; 5: damaged; 1: it could not be checked, because a\n" +
			"node runs, for example.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := verify(cmd, t, nil)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd, found)
			} else {
				err = printVerified(cmd.OutOrStdout(), &found)
			}
			return errors.Join(err, damaged(&found))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print all of it as JSON")
	return cmd
}

// verify reads the data directory of t.
func verify(cmd *cobra.Command, t *target, each func(admin.Record) error) (node.Verified, error) {
	if err := t.offline(); err != nil {
		return node.Verified{}, err
	}
	ctx, done := interruptible(cmd)
	defer done()
	bar := progress(cmd, -1, "verifying", true)
	found, err := node.Verify(ctx, t.dataDir, each, func(done, total int64) {
		bar.ChangeMax64(total)
		// A bar that cannot be drawn is no reason to stop.
		_ = bar.Set64(done)
	})
	return found, t.explain(errors.Join(err, bar.Exit()))
}

// damaged is the error for damage that was told.
func damaged(found *node.Verified) error {
	if !found.Damaged() {
		return nil
	}
	return exitWith(exitDamaged, fmt.Errorf("data directory %s is damaged: %s", found.Dir, count(len(found.Problems)+found.More, "problem")))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// printVerified tells a person.
func printVerified(w io.Writer, found *node.Verified) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "data directory %s\n", found.Dir)
	fmt.Fprintf(out, "  %s with %d bytes, %s of removed ones\n", count(found.Records, "record"), found.Data, count(found.Tombstones, "tombstone"))
	fmt.Fprintf(out, "  %s and %s that do not count any more\n", count(found.Older, "replaced message"), count(found.Purged, "purged message"))
	fmt.Fprintf(out, "  %s of the log not carried over to the state yet\n", count(found.Pending, "message"))
	for _, s := range found.Streams {
		fmt.Fprintf(out, "stream %s: %s, %d bytes; %s, sequences %d to %d", s.Name, count(s.Blocks, "block file"), s.Bytes, count(s.Messages, "message"), s.First, s.Last)
		if s.Acknowledged > 0 {
			fmt.Fprintf(out, ", acknowledged up to %d", s.Acknowledged)
		}
		fmt.Fprintf(out, "; epoch %d\n", s.Epoch)
	}
	for _, note := range found.Notes {
		fmt.Fprintf(out, "note: %s\n", note)
	}
	printProblems(out, found)
	if !found.Damaged() {
		fmt.Fprintln(out, "no damage found")
	}
	return out.Flush()
}

// printProblems tells what is damaged, and once for each cure what to do.
func printProblems(w io.Writer, found *node.Verified) {
	var cures []string
	told := make(map[string]bool)
	for i := range found.Problems {
		p := &found.Problems[i]
		fmt.Fprintf(w, "%3d. %s\n", i+1, p)
		if !told[p.Cure] {
			told[p.Cure] = true
			cures = append(cures, p.Cure)
		}
	}
	if found.More > 0 {
		fmt.Fprintf(w, "     and %d more\n", found.More)
	}
	if len(cures) > 0 {
		fmt.Fprintf(w, "what to do: %s\n", strings.Join(cures, "\n        or: "))
	}
}

// exportOffline exports what can be read, and tells what cannot.
func exportOffline(cmd *cobra.Command, t *target, file, prefix string) error {
	var found node.Verified
	err := intoFile(cmd, file, func(to io.Writer) (err error) {
		out := admin.NewExporter(to)
		found, err = verify(cmd, t, func(r admin.Record) error {
			if !strings.HasPrefix(r.Name, prefix) {
				return nil
			}
			return out.Add(r)
		})
		if err != nil {
			return err
		}
		return out.End()
	})
	if err != nil {
		return err
	}
	printProblems(cmd.ErrOrStderr(), &found)
	return damaged(&found)
}
