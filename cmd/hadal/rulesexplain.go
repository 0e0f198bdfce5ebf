package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hadal/perms"
)

// explainFlags are a question as it is typed.
type explainFlags struct {
	query                   perms.Query
	userData, data, oldData string
	refs                    []string
	now                     string
}

func newRulesExplain() *cobra.Command {
	var from rulesSource
	var ask explainFlags
	var t target
	var asJSON, online bool
	cmd := &cobra.Command{
		Use:   "explain --action ACTION --name NAME",
		Short: "Say why rules allow or deny something",
		Long: "Say why rules allow or deny something: which path decides and which were passed\n" +
			"over, what the rule sees, the value of each of its parts, and the one that\n" +
			"decided (marked with *). Values of keys such as password or token are hidden.\n\n" +
			"The rules are those of a file, or of the configuration, and records are what the\n" +
			"flags give; others do not exist. With --node, or a flag that names a running\n" +
			"node, that node is asked: for its rules in force, and its own records where the\n" +
			"flags give none. Nothing is changed, and no client hears of it.\n\n" +
			"The exit code is 0 whatever the verdict: `hadal rules test` is for checks.",
		Example: `  hadal rules explain --rules permissions.yml --user ada --action record.update \
      --name users/ada --data '{"age": 37}' --old-data '{"age": 36}'
  hadal rules explain --node --user ada --action record.subscribeCreateAndRead --name users/bob
  hadal rules explain --action rpc.request --name add --data '[1, 2]' --ref perm/add='{"open": true}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := ask.read()
			if err != nil {
				return err
			}
			var x *perms.Explanation
			if online || t.dataDir+t.socket+t.url != "" {
				if from.file != "" {
					return usagef("--rules is for files, and a node has its own: keep one of them")
				}
				x, err = explainOnline(cmd, &t, q)
			} else {
				from.config = t.config
				x, err = explainOffline(cmd, &from, q)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, x)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), x.Text())
			return err
		},
	}
	t.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&from.file, "rules", "", "rules `file`, instead of the configuration's")
	f.BoolVar(&online, "node", false, "ask the running node")
	f.StringVar(&ask.query.User, "user", "", "`id` of who asks; without it, a client that logged in without a name")
	f.StringVar(&ask.userData, "user-data", "", "server data of the user, as `JSON`")
	f.StringVar(&ask.query.Action, "action", "", "what is asked for: section and `action` (record.createAndUpdate), or rule type (record.write)")
	f.StringVar(&ask.query.Name, "name", "", "`name` of the record, event, rpc or user; for a listen the pattern")
	f.StringVar(&ask.data, "data", "", "what is sent, as `JSON`; for a record what it would become")
	f.StringVar(&ask.query.Path, "path", "", "`path` in the record that the data goes to")
	f.StringVar(&ask.oldData, "old-data", "", "the record as it is, as `JSON`; null for none")
	f.StringArrayVar(&ask.refs, "ref", nil, "another record, as `NAME=JSON`; may be repeated")
	f.StringVar(&ask.now, "now", "", "the `time` that rules see: milliseconds, 2026-01-31T12:00:00Z, or now (default 2023-11-14T22:13:20Z, always)")
	f.BoolVar(&ask.query.ShowSecrets, "show-secrets", false, "show the values of keys such as password")
	f.BoolVar(&asJSON, "json", false, "print the explanation as JSON")
	cmd.MarkFlagsMutuallyExclusive("rules", "config")
	cmd.MarkFlagsMutuallyExclusive("rules", "node")
	return cmd
}

// read is the question.
func (f *explainFlags) read() (perms.Query, error) {
	q := f.query
	if q.Action == "" {
		return q, usagef("what is asked for? Name it with --action, such as record.update")
	}
	var errs [3]error
	q.UserData, errs[0] = document("--user-data", f.userData)
	q.Data, errs[1] = document("--data", f.data)
	q.OldData, errs[2] = document("--old-data", f.oldData)
	for _, err := range errs {
		if err != nil {
			return q, err
		}
	}
	for _, ref := range f.refs {
		name, text, ok := strings.Cut(ref, "=")
		if !ok || text == "" {
			return q, usagef("--ref: %s has no content: write NAME=JSON", ref)
		}
		raw, err := document("--ref", text)
		if err != nil {
			return q, err
		}
		if q.References == nil {
			q.References = map[string]json.RawMessage{}
		}
		q.References[name] = raw
	}
	var err error
	q.Now, err = parseNow(f.now)
	return q, err
}

// parseNow reads a time in milliseconds; 0 is the default.
func parseNow(text string) (int64, error) {
	switch text {
	case "":
		return 0, nil
	case "now":
		return time.Now().UnixMilli(), nil
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return ms, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0, usagef("--now: %s is no time: write milliseconds, 2026-01-31T12:00:00Z, or now", text)
	}
	return at.UnixMilli(), nil
}

func explainOffline(cmd *cobra.Command, from *rulesSource, q perms.Query) (*perms.Explanation, error) {
	rules, err := from.load()
	if err != nil {
		return nil, err
	}
	x, err := rules.Explain(cmd.Context(), q, nil)
	if errors.Is(err, perms.ErrQuery) {
		err = exitWith(exitUsage, err)
	}
	return x, err
}

func explainOnline(cmd *cobra.Command, t *target, q perms.Query) (*perms.Explanation, error) {
	client, err := t.open()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, done := interruptible(cmd)
	defer done()
	x, err := client.Explain(ctx, q)
	return x, t.explain(err)
}
