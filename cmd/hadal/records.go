package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"hadal/node/admin"
)

func newRecords() *cobra.Command {
	t := &target{}
	cmd := group(&cobra.Command{
		Use:   "records",
		Short: "Read and write the records of a running node",
		Long: "Read and write the records of a running node, as its operator: no rule applies,\n" +
			"and subscribers do not hear of changes until a client sends a notify for them.\n" +
			"The node is reached through the admin socket in its data directory, which only\n" +
			"its own user can open, or through its admin.listen. Verify, and export with\n" +
			"--offline, read the files of a node that does not run.",
	},
		newRecordsGet(t), newRecordsSet(t), newRecordsDelete(t),
		newRecordsList(t), newRecordsExport(t), newRecordsImport(t), newRecordsVerify(t))
	t.flags(cmd)
	return cmd
}

func newRecordsGet(t *target) *cobra.Command {
	var whole bool
	cmd := &cobra.Command{
		Use:   "get NAME",
		Short: "Print the data of a record",
		Args:  cobra.ExactArgs(1),
		RunE: withNode(t, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			rec, err := c.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !whole {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), rec.Data)
				return err
			}
			return printJSON(cmd, struct {
				Name    string          `json:"name"`
				Version int32           `json:"version"`
				Data    json.RawMessage `json:"data"`
			}{rec.Name, rec.Version, json.RawMessage(rec.Data)})
		}),
	}
	cmd.Flags().BoolVar(&whole, "json", false, "print name and version as well, as JSON")
	return cmd
}

func newRecordsSet(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "set NAME [JSON]",
		Short: "Write a record and print its new version; without JSON, from standard input",
		Args:  cobra.RangeArgs(1, 2),
		RunE: withNode(t, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			var data string
			if len(args) == 2 {
				data = args[1]
			} else {
				b, err := io.ReadAll(cmd.InOrStdin())
				if err != nil {
					return fmt.Errorf("read the data: %w", err)
				}
				data = strings.TrimSpace(string(b))
			}
			version, err := c.Set(cmd.Context(), args[0], data)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), version)
			return err
		}),
	}
}

func newRecordsDelete(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME...",
		Short: "Delete records",
		Args:  cobra.MinimumNArgs(1),
		RunE: withNode(t, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			var errs []error
			for _, name := range args {
				errs = append(errs, c.Delete(cmd.Context(), name))
			}
			return errors.Join(errs...)
		}),
	}
}

func newRecordsList(t *target) *cobra.Command {
	var quoted bool
	cmd := &cobra.Command{
		Use:   "list [PREFIX]",
		Short: "Print the names of records, one a line",
		Args:  cobra.MaximumNArgs(1),
		RunE: withNode(t, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			out := bufio.NewWriter(cmd.OutOrStdout())
			err := c.Names(cmd.Context(), prefix(args), func(name string) error {
				if quoted {
					b, err := admin.AppendName(nil, name)
					if err != nil {
						return err
					}
					_, err = out.Write(b)
					return err
				}
				_, err := fmt.Fprintln(out, name)
				return err
			})
			return errors.Join(err, out.Flush())
		}),
	}
	cmd.Flags().BoolVar(&quoted, "json", false, "print each name as a JSON string, because a name may hold the end of a line; one that is no UTF-8 as {\"name64\": base64}")
	return cmd
}

func newRecordsExport(t *target) *cobra.Command {
	var file string
	var offline bool
	online := withNode(t, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		return exportTo(cmd, c, file, prefix(args))
	})
	cmd := &cobra.Command{
		Use:   "export [PREFIX]",
		Short: "Print records with their versions, a line of JSON each",
		Long: "Print records with their versions, a line of JSON each, and a last line by which\n" +
			"import knows that it has all of them. A name or data that cannot stand in a line\n" +
			"of JSON as it is stands there as base64, under name64 or data64.\n\n" +
			"With --offline the files of a node that does not run are read, also damaged ones:\n" +
			"what can be read is exported, what is damaged is told, with exit code 5. A record\n" +
			"whose newest state cannot be read is left out, or comes in an older one where\n" +
			"nothing is left that tells its name.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if offline {
				return exportOffline(cmd, t, file, prefix(args))
			}
			return online(cmd, args)
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "write to this `file` instead, only when all of it is there")
	cmd.Flags().BoolVar(&offline, "offline", false, "read the files of a node that does not run")
	return cmd
}

// exportTo writes records to a file, or to standard output when none is named.
func exportTo(cmd *cobra.Command, c *admin.Client, file, prefix string) error {
	return linesTo(cmd, file, func(ctx context.Context, fn func([]byte) error) error { return c.Export(ctx, prefix, fn) })
}

// linesTo writes an export to a file, or to standard output when none is named.
func linesTo(cmd *cobra.Command, file string, export func(context.Context, func(line []byte) error) error) error {
	return intoFile(cmd, file, func(to io.Writer) error {
		bar := progress(cmd, -1, "exported", false)
		out := bufio.NewWriterSize(to, 256<<10)
		err := export(cmd.Context(), func(line []byte) error {
			_, err := out.Write(line)
			return errors.Join(err, bar.Add(1))
		})
		return errors.Join(err, out.Flush(), bar.Exit())
	})
}

// intoFile has write write to standard output, or to a file when one is named:
// never half an export under the name of a whole one.
func intoFile(cmd *cobra.Command, file string, write func(io.Writer) error) (err error) {
	if file == "" {
		return write(cmd.OutOrStdout())
	}
	part, err := os.OpenFile(file+".part", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, part.Sync(), part.Close()); err == nil {
			err = os.Rename(part.Name(), file)
		} else {
			err = errors.Join(err, os.Remove(part.Name()))
		}
	}()
	return write(part)
}

func newRecordsImport(t *target) *cobra.Command {
	var partial bool
	var from fromFlags
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Write records from an export, or from what deepstream has left behind",
		Long: "Write records from an export, each with its version, over what is there; without a\n" +
			"file, from standard input. It stops at the first line that is wrong; what stands\n" +
			"before stays written, and the same import may be run again. That an export lacks\n" +
			"lines, or was changed, is an error at its end, unless --partial says that it need not\n" +
			"be whole.\n\n" +
			"With --from the records come from the PostgreSQL of deepstream's storage connector,\n" +
			"from the dump (RDB) of a redis that its connector wrote to, or from lines of JSON:\n" +
			`{"name":…,"version":…,"data":…}` + "\n" +
			"What the node has in the same version, or a newer one, stays as it is, so that the\n" +
			"import may be repeated; what cannot be a record is told by name, with exit code 1 at\n" +
			"the end. PGPASSWORD and ~/.pgpass keep a password out of the command line.",
		Args: cobra.MaximumNArgs(1),
	}
	run := withNode(t, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		if from.from != "" {
			return importFromSource(cmd, c, &from)
		}
		return importFrom(cmd, c, prefix(args), partial)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := from.check(cmd, args); err != nil {
			return err
		}
		return run(cmd, args)
	}
	cmd.Flags().BoolVar(&partial, "partial", false, "take lines that are not all of an export, or were edited")
	from.flags(cmd)
	return cmd
}

// importFrom reads records from a file, or from standard input when none is named, or
// "-".
func importFrom(cmd *cobra.Command, c *admin.Client, file string, partial bool) error {
	from, size := cmd.InOrStdin(), int64(-1)
	if file != "" && file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		from, size = f, info.Size()
	}
	bar := progress(cmd, size, "importing", true)
	n, err := c.Import(cmd.Context(), io.TeeReader(from, bar), partial)
	if err = errors.Join(err, bar.Exit()); err != nil {
		return err
	}
	text := fmt.Sprintf("imported %d records", n.Records)
	if n.Logins > 0 {
		text += fmt.Sprintf(" and %d entries of logins", n.Logins)
	}
	_, err = fmt.Fprintln(cmd.ErrOrStderr(), text)
	return err
}

// withNode opens the target for do, whose context ends with an interrupt.
func withNode(t *target, do func(*cobra.Command, *admin.Client, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		client, err := t.open()
		if err != nil {
			return err
		}
		defer client.Close()
		ctx, done := interruptible(cmd)
		defer done()
		cmd.SetContext(ctx)
		return t.explain(do(cmd, client, args))
	}
}

func prefix(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// progress is shown to people who watch, and to nobody else.
func progress(cmd *cobra.Command, most int64, what string, bytes bool) *progressbar.ProgressBar {
	f, ok := cmd.ErrOrStderr().(*os.File)
	return progressbar.NewOptions64(most,
		progressbar.OptionSetWriter(cmd.ErrOrStderr()),
		progressbar.OptionSetVisibility(ok && term.IsTerminal(int(f.Fd()))),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(bytes),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
}
