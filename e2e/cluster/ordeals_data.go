//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hadal/node/admin"
)

// copyData starts a copy of a node's data directory beside it, as one who clones a machine
// does. The copy must end and say why, and nobody else may notice.
func copyData(ctx context.Context, o *ordeals) error {
	for _, n := range o.nodes[:2] { // one of them may lead
		before, err := n.cluster(ctx)
		if err != nil {
			return err
		}
		if err := errors.Join(os.RemoveAll(o.spare.dir), copyTree(o.spare.dir, n.dir)); err != nil {
			return err
		}
		life, _ := n.life()
		since := n.logged()
		if err := o.mustEnd(ctx, o.spare, o.spare.dir, "copy", "empty data directory"); err != nil {
			return err
		}
		if now, _ := n.life(); now != life || !n.running() {
			return violation(fmt.Sprintf("node %s has ended because of a copy of its data", n.name))
		}
		if err := n.awaitSaid(ctx, patience, since, "another process", o.spare.host); err != nil {
			return err
		}
		after, err := n.cluster(ctx)
		if err != nil {
			return err
		}
		if len(after.Nodes) != len(before.Nodes) {
			return violation(fmt.Sprintf("there were %d nodes before a copy came, and are %d", len(before.Nodes), len(after.Nodes)))
		}
	}
	return os.RemoveAll(o.spare.dir)
}

// copyTree copies the files of a directory, whatever happens to them meanwhile.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		name := filepath.Join(to, strings.TrimPrefix(path, from))
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(name, 0o700)
		case !d.Type().IsRegular():
			return nil // a socket
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return errors.Join(err, os.WriteFile(name, b, 0o600))
	})
}

// removeAndReturn removes a node that has died, and starts it again with its data: it must
// not come back by itself. Without its data it joins as a new member.
func removeAndReturn(ctx context.Context, o *ordeals) error {
	n := o.last()
	if err := n.kill(); err != nil {
		return err
	}
	if err := o.awaitDead(ctx, n); err != nil {
		return err
	}
	if err := o.nodes[0].ask(ctx, func(ctx context.Context, c *admin.Client) error { return c.RemoveNode(ctx, n.name) }); err != nil {
		return asViolation(err)
	}
	for range 2 { // whatever looks after processes tries again
		if err := o.mustEnd(ctx, n, n.dir, "was removed from the cluster", "empty data directory"); err != nil {
			return err
		}
	}
	s, err := o.nodes[0].cluster(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(s.Nodes, func(m admin.NodeStatus) bool { return m.Name == n.name }) {
		return violation(fmt.Sprintf("node %s was removed, and is a member again", n.name))
	}
	if err := errors.Join(empty(n.dir), n.start(o.binary)); err != nil {
		return err
	}
	return o.isWhole(ctx, "it joined as a new member", n)
}

// empty removes what is in a directory, which may be a file system of its own.
func empty(dir string) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range all {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// comeBackBehind has partitions change hands very often while a node is away. It starts
// cut off, with a table of the past, and must serve nobody; then it catches up.
func comeBackBehind(ctx context.Context, o *ordeals) error {
	n := o.last()
	moves := 40
	if o.full {
		moves = 1500 // and twice as many entries in raft's log, more than it keeps in the long run
	}
	if err := n.kill(); err != nil {
		return err
	}
	if err := o.awaitDead(ctx, n); err != nil {
		return err
	}
	if err := o.shuffle(ctx, moves); err != nil {
		return err
	}
	m := &nemesis{rig: o.rig}
	if _, err := m.isolate(n, true, true); err != nil {
		return err
	}
	if err := n.start(o.binary); err != nil {
		return err
	}
	served := ""
	for give := time.Now().Add(2500 * time.Millisecond); served == "" && time.Now().Before(give) && ctx.Err() == nil; wait(ctx, 20*time.Millisecond) {
		if !n.running() {
			return violation(fmt.Sprintf("node %s ended because it reaches nobody: its log is %s", n.name, n.logFile))
		}
		if n.ready(ctx) {
			served = "says that it is ready"
		}
		if s, err := dial(ctx, n, "early"); err == nil {
			s.close()
			served = "lets clients in"
		}
	}
	if served != "" {
		return violation(fmt.Sprintf("node %s %s with the table of the past", n.name, served))
	}
	if err := o.net.heal(); err != nil {
		return err
	}
	return o.isWhole(ctx, "it was let back", n)
}

// shuffle moves partitions back and forth, and lets them go where they want at the end.
func (o *ordeals) shuffle(ctx context.Context, moves int) error {
	asked := o.nodes[0]
	s, err := asked.cluster(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	for i := range moves {
		to := o.nodes[(i/len(s.Partitions))%2].name
		if err := asked.ask(ctx, func(ctx context.Context, c *admin.Client) error {
			return c.MovePartition(ctx, i%len(s.Partitions), to)
		}); err != nil {
			return asViolation(err)
		}
	}
	say("%d moves of partitions in %v", moves, time.Since(began).Round(time.Millisecond))
	return nil
}

// startInOrders kills all nodes at once, and starts them in every order with a pause between,
// and all at once; or, when there is little time, in one of these ways.
func startInOrders(ctx context.Context, o *ordeals) error {
	made, err := o.agreed(ctx, patience)
	if err != nil {
		return asViolation(err)
	}
	orders := permutations(len(o.nodes))
	if !o.full {
		orders = [][]int{orders[o.rand.IntN(len(orders))]}
	}
	type round struct {
		order []int
		pause time.Duration
	}
	var rounds []round
	for _, order := range orders {
		rounds = append(rounds, round{order, time.Duration(200+o.rand.IntN(1800)) * time.Millisecond})
	}
	switch {
	case o.full:
		rounds = append(rounds, round{orders[0], 0})
	case o.rand.IntN(2) == 0:
		rounds[0].pause = 0
	}
	for _, r := range rounds {
		for _, n := range o.nodes {
			if err := n.kill(); err != nil {
				return err
			}
		}
		began := time.Now()
		var names []string
		for i, at := range r.order {
			if i > 0 {
				wait(ctx, r.pause)
			}
			names = append(names, o.nodes[at].name)
			if err := o.nodes[at].start(o.binary); err != nil {
				return err
			}
		}
		if err := o.awaitReady(ctx, patience); err != nil {
			return asViolation(err)
		}
		ready := time.Since(began)
		now, err := o.agreed(ctx, patience)
		if err != nil {
			return asViolation(err)
		}
		if now != made {
			return violation(fmt.Sprintf("the cluster was %s, and is %s", made, now))
		}
		say("all killed, started as %s with %v between: ready after %v, whole after %v", strings.Join(names, ""), r.pause,
			ready.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// permutations are all orders of so many.
func permutations(n int) (all [][]int) {
	if n == 0 {
		return [][]int{nil}
	}
	for _, p := range permutations(n - 1) {
		for i := range n {
			all = append(all, slices.Insert(slices.Clone(p), i, n-1))
		}
	}
	return all
}
