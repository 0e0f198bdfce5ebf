package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hadal/node/admin"
)

func newCluster() *cobra.Command {
	t := &target{}
	cmd := group(&cobra.Command{
		Use:   "cluster",
		Short: "See and change the cluster that a running node belongs to",
		Long: "See and change the cluster that a running node belongs to. Any node can be asked,\n" +
			"also about others; a node is named by its name or its id.",
	}, newClusterStatus(t), newClusterDrain(t), newClusterRemove(t), newClusterMove(t), newClusterBackup(t), newClusterRestore(t))
	t.flags(cmd)
	return cmd
}

func newClusterStatus(t *target) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print the nodes, and who owns what",
		Args:  cobra.NoArgs,
		RunE: withNode(t, func(cmd *cobra.Command, c *admin.Client, _ []string) error {
			s, err := c.Cluster(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, s)
			}
			return printCluster(cmd.OutOrStdout(), s)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printCluster prints what a person wants to know first.
func printCluster(to io.Writer, s admin.ClusterStatus) error {
	names := make(map[string]string)
	for _, n := range s.Nodes {
		names[n.ID] = n.Name
	}
	name := func(id string) string { return cmp.Or(names[id], id, "nobody") }
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "cluster\t%s\nid\t%s\nleader\t%s (term %d)\n\n", cmp.Or(s.Name, "none: the node runs alone"), s.ID, name(s.Leader), s.Term)
	fmt.Fprintln(w, "NODE\tROLE\tSTATE\tOWNS\tCLIENTS\tVERSION\tADDRESS\tID")
	for _, n := range s.Nodes {
		role := n.Role
		if n.Voter {
			role += ", votes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", n.Name, role, stateOf(n, s.Self), n.Partitions, n.Clients, n.Version, n.Address, n.ID)
	}
	fmt.Fprintln(w, "\nPARTITION\tOWNER\tEPOCH\tREPLICAS\tSTREAMS")
	for _, p := range s.Partitions {
		replicas := make([]string, len(p.Replicas))
		for i, id := range p.Replicas {
			replicas[i] = name(id)
		}
		var streams []string
		for _, st := range p.Streams {
			streams = append(streams, streamText(st, name))
		}
		fmt.Fprintf(w, "%d\t%s\t%d\t%s\t%s\n", p.Partition, name(p.Owner), p.Epoch, strings.Join(replicas, " "), strings.Join(streams, "; "))
	}
	if s.Logins != nil {
		fmt.Fprintf(w, "\nlogins\t%s\n", streamText(*s.Logins, name))
	}
	return w.Flush()
}

// streamText is how a stream is replicated.
func streamText(st admin.StreamStatus, name func(id string) string) string {
	text := fmt.Sprintf("%s: leader %s, %d of %d current", st.Name, name(st.Leader), st.Current, st.Replicas)
	if st.Lag > 0 {
		text += fmt.Sprintf(", lag %d", st.Lag)
	}
	for _, b := range st.Behind {
		text += fmt.Sprintf(", %s lacks %d", name(b.Node), b.Lag)
		if b.Offline {
			text += " and is not heard of"
		}
	}
	return text
}

// stateOf is one word, or two, for how a node is.
func stateOf(n admin.NodeStatus, self string) string {
	switch {
	case !n.Alive:
		return "dead"
	case n.Draining:
		return "draining"
	case n.Unfit:
		return "cannot write"
	case !n.Linked && n.ID != self:
		return "alive, no link"
	}
	return "alive"
}

func newClusterDrain(t *target) *cobra.Command {
	var undo bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "drain [NODE]",
		Short: "Have a node give away what it owns and say goodbye to its clients",
		Long: "Have a node give away what it owns, get nothing new, and say goodbye to its\n" +
			"clients over cluster.drainTime; without NODE, the node that is asked. It waits\n" +
			"until that is done. The node goes on running, and stays drained until it is started\n" +
			"again, or --undo.",
		Args: cobra.MaximumNArgs(1),
		RunE: withNode(t, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			id, err := nodeNamed(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			if err := c.Drain(cmd.Context(), id, !undo); err != nil || undo || wait == 0 {
				return err
			}
			ctx, done := context.WithTimeout(cmd.Context(), wait)
			defer done()
			return awaitDrained(ctx, cmd, c, id)
		}),
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "end a drain")
	cmd.Flags().DurationVar(&wait, "wait", 2*time.Minute, "how long to wait; 0 is not at all")
	return cmd
}

// nodeNamed is the id of the node that is named, or of the one that is asked.
func nodeNamed(ctx context.Context, c *admin.Client, args []string) (string, error) {
	s, err := c.Cluster(ctx)
	if err != nil {
		return "", err
	}
	if len(args) == 0 {
		return s.Self, nil
	}
	i := slices.IndexFunc(s.Nodes, func(n admin.NodeStatus) bool { return n.ID == args[0] || n.Name == args[0] && n.Alive })
	if i < 0 {
		i = slices.IndexFunc(s.Nodes, func(n admin.NodeStatus) bool { return n.Name == args[0] })
	}
	if i < 0 {
		return "", fmt.Errorf("there is no node %q: see hadal cluster status", args[0])
	}
	return s.Nodes[i].ID, nil
}

// awaitDrained waits until a node owns nothing and has no clients.
func awaitDrained(ctx context.Context, cmd *cobra.Command, c *admin.Client, id string) error {
	bar := progress(cmd, -1, "draining", false)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := c.Cluster(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(s.Nodes, func(n admin.NodeStatus) bool { return n.ID == id })
		if i < 0 || !s.Nodes[i].Alive || s.Nodes[i].Partitions == 0 && s.Nodes[i].Clients == 0 {
			return bar.Exit()
		}
		n := s.Nodes[i]
		bar.Describe(fmt.Sprintf("draining %s: %d partitions, %d clients left", n.Name, n.Partitions, n.Clients))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("node %s is not drained yet: it owns %d partitions and has %d clients", n.Name, n.Partitions, n.Clients)
		}
	}
}

func newClusterRemove(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NODE",
		Short: "Have the cluster forget a node that does not run any more",
		Args:  cobra.ExactArgs(1),
		RunE: withNode(t, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			id, err := nodeNamed(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			return c.RemoveNode(cmd.Context(), id)
		}),
	}
}

func newClusterMove(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "move PARTITION NODE",
		Short: "Make a node the owner of a partition",
		Args:  cobra.ExactArgs(2),
		RunE: withNode(t, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			p, err := strconv.Atoi(args[0])
			if err != nil {
				return usagef("%q is not the number of a partition", args[0])
			}
			id, err := nodeNamed(cmd.Context(), c, args[1:])
			if err != nil {
				return err
			}
			return c.MovePartition(cmd.Context(), p, id)
		}),
	}
}

func newClusterBackup(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Write everything that the cluster keeps to a file, while it runs",
		Long: "Write everything that the cluster keeps to a file, while it runs: each record as it\n" +
			"is in one moment during the backup, and what logins keep, which are users with the\n" +
			"hashes of their passwords, roles, registrations and tokens. Keep it as safe as\n" +
			"those. The file is that of hadal records export, with lines of logins. A node that\n" +
			"runs alone can be asked for one as well.",
		Args: cobra.ExactArgs(1),
		RunE: withNode(t, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			return linesTo(cmd, args[0], c.Backup)
		}),
	}
}

func newClusterRestore(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "restore FILE",
		Short: "Write everything in a backup over what the cluster keeps, while it runs",
		Long: "Write everything in a backup over what the cluster keeps, while it runs. Records\n" +
			"that are not in the backup stay, and so do users and the like; those that are in it\n" +
			"become what they were: revoke again what was revoked since. Subscribers do not hear\n" +
			"of it until a client sends a notify. A backup that is not whole is an error at its\n" +
			"end.",
		Args: cobra.ExactArgs(1),
		RunE: withNode(t, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			return importFrom(cmd, c, args[0], false)
		}),
	}
}
