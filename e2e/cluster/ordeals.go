//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hadal/bench/target"
)

// ordeal is something that operators and machines do to a cluster while it is used. An
// error that is a violation is a broken promise.
type ordeal struct {
	name string
	root bool // it needs networks that can be cut, or a disk that can be full
	long bool // it is not for every day
	do   func(ctx context.Context, o *ordeals) error
}

// allOrdeals come in this order, in one cluster.
var allOrdeals = []ordeal{
	{name: "certificates", root: true, long: true, do: rotateCertificates},
	{name: "copied", do: copyData},
	{name: "removed", do: removeAndReturn},
	{name: "behind", root: true, do: comeBackBehind},
	{name: "logins", root: true, do: cutOffFromLogins},
	{name: "full", root: true, do: fillDisk},
	{name: "orders", do: startInOrders},
}

// ordeals is a cluster that goes through them, with what it stands on.
type ordeals struct {
	*rig
	trial     *trial
	rand      *rand.Rand
	authority *authority
	small     *tmpfs // the disk of the last node, or nil
	full      bool   // all that there is, however long it takes
}

// last is the node that most is done to.
func (o *ordeals) last() *node { return o.nodes[len(o.nodes)-1] }

// runOrdeals has a cluster that is written all the time go through the ordeals. Its nodes know
// each other by certificates from files.
func runOrdeals(ctx context.Context, s *settings) (summary string, err error) {
	if s.nodes < 3 {
		return "", errors.New("ordeals need three nodes")
	}
	r, err := newRig(s.node, filepath.Join(s.work, "nodes"), s.nodes, s.parted, "")
	if err != nil {
		return "", err
	}
	o := &ordeals{rig: r, rand: rand.New(rand.NewPCG(s.seed, 3)), full: s.full}
	defer func() { err = errors.Join(err, o.end(err != nil)) }()
	if err := o.prepare(ctx, s); err != nil {
		return "", err
	}
	o.trial = newTrial(r, s.seed, false)
	var took []string
	summary, err = o.trial.run(ctx, func(ctx context.Context) error {
		for _, each := range allOrdeals {
			switch {
			case s.only != "" && s.only != each.name, each.long && !s.full && s.only == "":
				continue
			case each.root && !s.parted:
				say("%s: left out, as it needs root", each.name)
				continue
			}
			began := time.Now()
			say("%s", each.name)
			if err := each.do(ctx, o); err != nil {
				return fmt.Errorf("%s: %w", each.name, err)
			}
			took = append(took, fmt.Sprintf("%s %v", each.name, time.Since(began).Round(100*time.Millisecond)))
		}
		return nil
	})
	return summary + "; " + strings.Join(took, ", "), err
}

// prepare starts the cluster.
func (o *ordeals) prepare(ctx context.Context, s *settings) (err error) {
	if o.authority, err = newAuthority(o.dir, "first"); err != nil {
		return err
	}
	if s.parted {
		if o.small, err = newTmpfs(o.last().dir, smallDisk); err != nil {
			return err
		}
	}
	if err := o.configure(); err != nil {
		return err
	}
	for _, n := range append(slices.Clone(o.nodes), o.spare) {
		n.args = append(n.args, "--log-level", s.logLevel)
		n.env = slices.DeleteFunc(n.env, func(v string) bool { return strings.HasPrefix(v, "HADAL_CLUSTER_SECRET=") })
		n.env = append(n.env, o.authority.environment(n)...)
		if err := o.authority.issue(n, time.Hour); err != nil {
			return err
		}
	}
	return o.start(ctx)
}

// end takes everything away. What was on the small disk can be looked at when something
// has failed.
func (o *ordeals) end(failed bool) error {
	err := o.close()
	if o.small == nil {
		return err
	}
	if failed {
		err = errors.Join(err, copyTree(o.small.dir+".kept", o.small.dir))
	}
	return errors.Join(err, o.small.remove())
}

// others are all nodes but one.
func (o *ordeals) others(n *node) []*node {
	return slices.DeleteFunc(slices.Clone(o.nodes), func(m *node) bool { return m == n })
}

// until waits for a condition, which says what is missing.
func until(ctx context.Context, within time.Duration, missing func() string) error {
	give := time.Now().Add(within)
	for {
		text := missing()
		if text == "" {
			return nil
		}
		if time.Now().After(give) {
			return violation(fmt.Sprintf("after %v: %s", within, text))
		}
		if err := target.Pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// asViolation is err as a broken promise, or nil.
func asViolation(err error) error {
	if err == nil {
		return nil
	}
	return violation(err.Error())
}

// isWhole waits until a node is ready, and the cluster with it.
func (o *ordeals) isWhole(ctx context.Context, since string, n *node) error {
	began := time.Now()
	err := n.awaitReady(ctx, 2*patience)
	ready := time.Since(began)
	if err == nil {
		_, err = o.agreed(ctx, 2*patience)
	}
	say("%s is ready %v after %s, and all is whole after %v", n.name, ready.Round(time.Millisecond), since, time.Since(began).Round(time.Millisecond))
	return asViolation(err)
}

// awaitDead waits until another node counts a node as dead.
func (o *ordeals) awaitDead(ctx context.Context, n *node) error {
	other := o.others(n)[0]
	return until(ctx, patience, func() string {
		s, err := other.cluster(ctx)
		if err != nil {
			return err.Error()
		}
		for _, m := range s.Nodes {
			if m.Name == n.name && m.Alive {
				return fmt.Sprintf("node %s counts %s as alive", other.name, n.name)
			}
		}
		return ""
	})
}

// mustEnd starts a node that must not run: it has to end in its own words.
func (o *ordeals) mustEnd(ctx context.Context, n *node, words ...string) error {
	since := n.logged()
	if err := n.start(o.binary); err != nil {
		return err
	}
	began := time.Now()
	said, err := n.ends(ctx, patience, since)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(said), "\n")
	end := lines[len(lines)-1]
	for _, w := range words {
		if !strings.Contains(end, w) {
			return violation(fmt.Sprintf("node %s ends with %q, which does not say %q", n.name, end, w))
		}
	}
	say("%s ended after %v: %s", n.name, time.Since(began).Round(time.Millisecond), end)
	return nil
}
