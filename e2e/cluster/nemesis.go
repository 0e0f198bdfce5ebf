//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// nemesis does one evil after the other to a cluster, by its seed.
type nemesis struct {
	rig   *rig
	rand  *rand.Rand
	names *names
	log   func(format string, args ...any)
	done  map[string]int
	// depose has an owner be replaced while it is stopped, and then go on: all that
	// the nemesis does, instead of everything that it can.
	depose bool
}

// fault is one evil; it returns what it did in words. heal of the rig undoes it.
type fault struct {
	name   string
	do     func(ctx context.Context, m *nemesis) (string, error)
	parted bool // needs networks
	delays bool // needs netem
	clocks bool // needs nodes whose clocks can be moved
	many   bool // makes no sense with one node
	depose bool // takes what it has from an owner that lives on, and knows nothing
}

// deposeIn is how long an owner is stopped before another is owner for sure.
const deposeIn = 3 * time.Second

var faults = []fault{
	{name: "kill the owner", do: func(ctx context.Context, m *nemesis) (string, error) {
		n := m.owner(ctx)
		return "kill " + n.name, n.kill()
	}},
	{name: "kill", do: func(_ context.Context, m *nemesis) (string, error) {
		n := m.any()
		return "kill " + n.name, n.kill()
	}},
	{name: "pause the owner", depose: true, do: func(ctx context.Context, m *nemesis) (string, error) {
		n := m.owner(ctx)
		return "pause " + n.name, n.pause()
	}},
	{name: "pause", do: func(_ context.Context, m *nemesis) (string, error) {
		n := m.any()
		return "pause " + n.name, n.pause()
	}},
	{name: "restart", do: func(_ context.Context, m *nemesis) (string, error) {
		n := m.any()
		return "stop " + n.name, n.stop()
	}},
	{name: "isolate the owner", parted: true, many: true, do: func(ctx context.Context, m *nemesis) (string, error) {
		return m.isolate(m.owner(ctx), true, true)
	}},
	{name: "deafen the owner", parted: true, many: true, do: func(ctx context.Context, m *nemesis) (string, error) {
		return m.isolate(m.owner(ctx), false, true)
	}},
	{name: "silence the owner", parted: true, many: true, do: func(ctx context.Context, m *nemesis) (string, error) {
		return m.isolate(m.owner(ctx), true, false)
	}},
	{name: "cut a pair", parted: true, many: true, do: func(_ context.Context, m *nemesis) (string, error) {
		// Both still reach the others: no majority can tell that anything is wrong.
		a := m.any()
		b := m.rig.nodes[(a.index+1+m.rand.IntN(len(m.rig.nodes)-1))%len(m.rig.nodes)]
		return fmt.Sprintf("cut %s and %s", a.name, b.name), errors.Join(m.rig.net.cut(a.index, b.index), m.rig.net.cut(b.index, a.index))
	}},
	{name: "split", parted: true, many: true, do: func(_ context.Context, m *nemesis) (string, error) {
		return m.split()
	}},
	{name: "pause two", many: true, do: func(_ context.Context, m *nemesis) (string, error) {
		a := m.any()
		b := m.rig.nodes[(a.index+1)%len(m.rig.nodes)]
		return fmt.Sprintf("pause %s and %s", a.name, b.name), errors.Join(a.pause(), b.pause())
	}},
	{name: "kill all", do: func(_ context.Context, m *nemesis) (string, error) {
		var errs []error
		for _, n := range m.rig.nodes {
			errs = append(errs, n.kill())
		}
		return "kill all", errors.Join(errs...)
	}},
	{name: "move a clock", clocks: true, do: func(_ context.Context, m *nemesis) (string, error) {
		n := m.any()
		most := []time.Duration{10 * time.Second, time.Hour, 400 * 24 * time.Hour}[m.rand.IntN(3)]
		off := m.between(-most, most).Truncate(time.Second)
		return fmt.Sprintf("the clock of %s is %v off", n.name, off), n.setClock(off)
	}},
	{name: "move all clocks", clocks: true, many: true, do: func(_ context.Context, m *nemesis) (string, error) {
		var errs []error
		var did []string
		for _, n := range m.rig.nodes {
			off := m.between(-time.Minute, time.Minute).Truncate(time.Second)
			did = append(did, fmt.Sprintf("%s by %v", n.name, off))
			errs = append(errs, n.setClock(off))
		}
		return "the clocks are off, " + strings.Join(did, ", "), errors.Join(errs...)
	}},
	{name: "delay", parted: true, delays: true, many: true, do: func(_ context.Context, m *nemesis) (string, error) {
		n, d := m.any(), time.Duration(10+m.rand.IntN(200))*time.Millisecond
		return fmt.Sprintf("delay %s by %v", n.name, d), m.rig.net.delay(n.index, d)
	}},
}

// possible are the faults that this rig allows.
func (m *nemesis) possible() []fault {
	return slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
		return f.clocks && !m.rig.clocks || f.parted && m.rig.net == nil || f.delays && !m.rig.net.netem || f.many && len(m.rig.nodes) < 2 ||
			m.depose && !f.depose
	})
}

func (m *nemesis) any() *node { return m.rig.nodes[m.rand.IntN(len(m.rig.nodes))] }

// owner is the node that owns one of the records that are written now.
func (m *nemesis) owner(ctx context.Context) *node {
	m.names.mu.Lock()
	name := m.names.lane[m.rand.IntN(lanes)].name
	m.names.mu.Unlock()
	if n := m.rig.owner(ctx, name); n != nil {
		return n
	}
	return m.any()
}

// isolate has a node not be heard, or not hear, or both.
func (m *nemesis) isolate(n *node, unheard, deaf bool) (string, error) {
	var errs []error
	for _, other := range m.rig.nodes {
		if other == n {
			continue
		}
		if unheard {
			errs = append(errs, m.rig.net.cut(n.index, other.index))
		}
		if deaf {
			errs = append(errs, m.rig.net.cut(other.index, n.index))
		}
	}
	return fmt.Sprintf("isolate %s (unheard %v, deaf %v)", n.name, unheard, deaf), errors.Join(errs...)
}

// split parts the nodes in two, anywhere.
func (m *nemesis) split() (string, error) {
	order := m.rand.Perm(len(m.rig.nodes))
	at := 1 + m.rand.IntN(len(order)-1)
	var errs []error
	var sides [2][]string
	for _, i := range order[:at] {
		sides[0] = append(sides[0], m.rig.nodes[i].name)
		for _, j := range order[at:] {
			errs = append(errs, m.rig.net.cut(i, j), m.rig.net.cut(j, i))
		}
	}
	for _, j := range order[at:] {
		sides[1] = append(sides[1], m.rig.nodes[j].name)
	}
	return fmt.Sprintf("split %s | %s", strings.Join(sides[0], ""), strings.Join(sides[1], "")), errors.Join(errs...)
}

// run does evil until ctx ends. Each fault lasts for seconds; most are followed by
// others only when the cluster is well again, some sooner.
func (m *nemesis) run(ctx context.Context) error {
	possible := m.possible()
	for {
		wait(ctx, m.between(500*time.Millisecond, 3*time.Second))
		if ctx.Err() != nil {
			return nil
		}
		// Each once at first, so that a short run has them all.
		f := possible[m.rand.IntN(len(possible))]
		if least := slices.MinFunc(possible, func(a, b fault) int { return m.done[a.name] - m.done[b.name] }); m.done[least.name] < m.done[f.name] {
			f = least
		}
		did, err := f.do(ctx, m)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		m.done[f.name]++
		m.log("%s: %s", f.name, did)
		if m.depose {
			wait(ctx, deposeIn)
		} else {
			wait(ctx, m.between(500*time.Millisecond, 4*time.Second))
		}
		if err := m.rig.heal(); err != nil {
			return err
		}
		m.log("healed")
		if m.rand.IntN(4) == 0 {
			continue // the next one comes before they have recovered
		}
		if err := m.recover(ctx); err != nil {
			return violation(err.Error())
		}
	}
}

// recoverIn is how long the next fault waits for nodes that are wrong on purpose. They may
// never be well again, and what clients are told is what finds them out.
const recoverIn = 5 * time.Second

// recover waits until the cluster is well again, or ctx ends.
func (m *nemesis) recover(ctx context.Context) error {
	waiting, done := context.WithCancel(ctx)
	if m.depose {
		waiting, done = context.WithTimeout(ctx, recoverIn)
	}
	defer done()
	err := m.rig.awaitReady(waiting, patience)
	if waiting.Err() == nil {
		return err
	}
	if ctx.Err() != nil {
		return nil
	}
	if err := m.rig.damaged(); err != nil {
		return err
	}
	m.log("goes on, though not all are ready")
	return nil
}

func (m *nemesis) between(least, most time.Duration) time.Duration {
	return least + time.Duration(m.rand.Int64N(int64(most-least)))
}

// summary counts the faults.
func (m *nemesis) summary() string {
	var parts []string
	for _, f := range faults {
		if n := m.done[f.name]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", f.name, n))
		}
	}
	return strings.Join(parts, ", ")
}
