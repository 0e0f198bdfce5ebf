package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"hadal/node/admin"
	"hadal/store/deepstream"
)

// fromFlags say where records that are no export come from, and how they are taken.
type fromFlags struct {
	from                     string
	tables                   deepstream.TableOptions
	redisDB                  int
	dryRun, overwrite, users bool
}

func (f *fromFlags) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.from, "from", "", "`source` that is no export: postgres://…, a redis dump file, or a file of JSON lines (- is standard input)")
	flags.StringVar(&f.tables.Schema, "schema", "ds", "the PostgreSQL connector's option schema")
	flags.StringSliceVar(&f.tables.Only, "table", nil, "read this `table` only; may be repeated")
	flags.StringVar(&f.tables.Default, "default-table", "default", "the PostgreSQL connector's option defaultTable")
	flags.IntVar(&f.redisDB, "redis-db", 0, "the redis connector's option db")
	flags.BoolVar(&f.dryRun, "dry-run", false, "with --from: look at everything, tell what would be done, and write nothing")
	flags.BoolVar(&f.overwrite, "overwrite", false, "with --from: write also over what is as new, or newer, on the node")
	flags.BoolVar(&f.users, "users", false, "with --from: take users of deepstream's logins, too, as records that hold their hashes")
}

// check says which flags do not go with the source.
func (f *fromFlags) check(cmd *cobra.Command, args []string) error {
	var wrong []string
	switch {
	case f.from == "":
		wrong = []string{"schema", "table", "default-table", "redis-db", "dry-run", "overwrite", "users"}
	case len(args) > 0:
		return usagef("%q and --from name two sources", args[0])
	case f.isPostgres():
		wrong = []string{"partial", "redis-db"}
	default:
		wrong = []string{"partial", "schema", "table", "default-table"}
	}
	for _, name := range wrong {
		switch changed := cmd.Flags().Changed(name); {
		case changed && f.from == "":
			return usagef("--%s goes with --from", name)
		case changed:
			return usagef("--%s does not go with this source", name)
		}
	}
	return nil
}

func (f *fromFlags) isPostgres() bool {
	return strings.HasPrefix(f.from, "postgres://") || strings.HasPrefix(f.from, "postgresql://")
}

// origin is a source that is open: it is read once, and then closed.
type origin struct {
	read  func(context.Context, deepstream.Each) error
	close func() error
}

// open finds out what the source is.
func (f *fromFlags) open(cmd *cobra.Command) (origin, error) {
	if f.isPostgres() {
		return origin{func(ctx context.Context, each deepstream.Each) error {
			return deepstream.Tables(ctx, f.from, f.tables, each)
		}, func() error { return nil }}, nil
	}
	from, done := cmd.InOrStdin(), func() error { return nil }
	if strings.Contains(f.from, "://") { // which is not quoted: it may hold a password
		return origin{}, usagef("--from is postgres://…, or names a file")
	}
	if f.from != "-" {
		file, err := os.Open(f.from)
		if err != nil {
			return origin{}, err
		}
		from, done = file, file.Close
	}
	in := bufio.NewReader(from)
	head, err := in.Peek(5)
	isDump := deepstream.IsDump(head)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
	case isDump && f.from == "-":
		err = errors.New("a dump of redis is read more than once: give the name of its file")
	case string(head) == "PGDMP":
		err = fmt.Errorf("%s is a dump of PostgreSQL: restore it, and give the postgres:// of that database", f.from)
	case !isDump && cmd.Flags().Changed("redis-db"):
		err = usagef("--redis-db does not go with this source")
	case isDump:
		return origin{func(ctx context.Context, each deepstream.Each) error {
			return deepstream.Dump(ctx, f.from, f.redisDB, each)
		}, done}, nil
	default:
		return origin{func(ctx context.Context, each deepstream.Each) error {
			return deepstream.Lines(ctx, in, each)
		}, done}, nil
	}
	return origin{}, errors.Join(err, done())
}

// leftOut counts and tells what a source has and the node is not sent.
type leftOut struct {
	users, expired, foreign, elsewhere, refused int
	told                                        []admin.Told
}

// mostTold is how many of them are told by name.
const mostTold = 1000

func (l *leftOut) note(name string, reason error) {
	switch {
	case errors.Is(reason, deepstream.ErrUser):
		l.users++
	case errors.Is(reason, deepstream.ErrExpired):
		l.expired++
	case errors.Is(reason, deepstream.ErrForeign):
		l.foreign++
	case errors.Is(reason, deepstream.ErrElsewhere):
		l.elsewhere++
	default:
		if l.refused++; len(l.told) < mostTold {
			if name != "" {
				reason = fmt.Errorf("record %.200q: %w", name, reason)
			}
			l.told = append(l.told, admin.Told{Name: name, Why: reason.Error()})
		}
	}
}

// importFromSource brings records over from a source that is no export.
func importFromSource(cmd *cobra.Command, c *admin.Client, f *fromFlags) error {
	ctx := cmd.Context()
	src, err := f.open(cmd)
	if err != nil {
		return err
	}
	var left leftOut
	bar := progress(cmd, -1, "importing", false)
	lines, to := io.Pipe()
	var readErr error
	var reader sync.WaitGroup
	reader.Go(func() {
		out := admin.NewExporter(to)
		readErr = src.read(ctx, func(r deepstream.Record, reason error) error {
			if reason != nil && !(f.users && errors.Is(reason, deepstream.ErrUser)) {
				left.note(r.Name, reason)
				return nil
			}
			return errors.Join(out.Add(admin.Record(r)), bar.Add(1))
		})
		if readErr == nil {
			readErr = out.End()
		}
		_ = to.CloseWithError(readErr) // it never fails
	})
	merged, err := c.Merge(ctx, lines, admin.MergeOptions{DryRun: f.dryRun, Overwrite: f.overwrite})
	_ = lines.Close() // neither does this
	reader.Wait()
	closeErr := errors.Join(src.close(), bar.Exit())
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case readErr != nil && !errors.Is(readErr, io.ErrClosedPipe):
		// Only its text: what is wrong with the source is not wrong with the node.
		return fmt.Errorf("%v; what was read until then is written, and the import may be repeated", readErr)
	case err != nil:
		return err
	case closeErr != nil:
		return closeErr
	}
	return f.report(cmd, merged, &left)
}

// report tells what became of all records. That some were refused is an error.
func (f *fromFlags) report(cmd *cobra.Command, m admin.Merged, left *leftOut) error {
	var text strings.Builder
	told := append(left.told, m.Told...)
	for _, t := range told {
		fmt.Fprintf(&text, "not imported: %s\n", t.Why)
	}
	refused := left.refused + m.Refused
	if more := refused + m.Kept - len(told); more > 0 {
		fmt.Fprintf(&text, "not imported: %d more\n", more)
	}
	done := "imported"
	if f.dryRun {
		done = "would be imported"
	}
	fmt.Fprintf(&text, "%s: %d records; unchanged: %d; kept, because the node has them as new or newer: %d; refused: %d\n",
		done, m.Written, m.Unchanged, m.Kept, refused)
	for _, l := range []struct {
		count int
		what  string
	}{
		{left.users, "users of deepstream's logins, which hadal user import stores"},
		{left.expired, "keys whose time to live is over"},
		{left.foreign, "keys that deepstream did not write"},
		{left.elsewhere, "keys in other databases than --redis-db"},
	} {
		if l.count > 0 {
			fmt.Fprintf(&text, "left out: %d %s\n", l.count, l.what)
		}
	}
	if _, err := io.WriteString(cmd.ErrOrStderr(), text.String()); err != nil {
		return err
	}
	if refused > 0 {
		return fmt.Errorf("%d records were refused", refused)
	}
	return nil
}
