//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"hadal/cluster"
)

// gapRecords is how many records are written, each by a client of its own.
const gapRecords = 24

// gapFault is what is done to the node that owns records. The clients do not speak to
// that node.
type gapFault struct {
	name string
	do   func(r *rig, n *node) error
}

var gapFaults = []gapFault{
	{"kill -9", func(_ *rig, n *node) error { return n.kill() }},
	{"pause", func(_ *rig, n *node) error { return n.pause() }},
	{"partition", func(r *rig, n *node) error {
		if r.net == nil {
			return errors.New("a partition needs root")
		}
		_, err := (&nemesis{rig: r}).isolate(n, true, true)
		return err
	}},
}

// faultLasts is how long a fault lasts, which is longer than a gap should.
const faultLasts = 6 * time.Second

// gaps measures for how long records cannot be written.
func gaps(ctx context.Context, s *settings) (summary string, err error) {
	if s.nodes < 3 {
		return "", errors.New("gaps needs three nodes")
	}
	var rows []string
	err = withRig(ctx, s, s.node, "nodes", "", func(r *rig) error {
		source := rand.New(rand.NewPCG(s.seed, 0))
		for _, f := range gapFaults {
			if s.only != "" && s.only != f.name {
				continue
			}
			var lost, others []time.Duration
			for round := range s.rounds {
				theirs, rest, err := gapOnce(ctx, r, f, source)
				if err != nil {
					return fmt.Errorf("%s, round %d: %w", f.name, round+1, err)
				}
				say("%s %d of %d: the owner's records %v, others %v", f.name, round+1, s.rounds, theirs.Round(time.Millisecond), rest.Round(time.Millisecond))
				lost, others = append(lost, theirs), append(others, rest)
			}
			rows = append(rows, gapRow(f.name, "the lost owner", lost), gapRow(f.name, "other owners", others))
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	fmt.Printf("\n| fault | records of | min | median | max |\n|---|---|---|---|---|\n%s\n\n", strings.Join(rows, "\n"))
	return fmt.Sprintf("%d rounds of each fault", s.rounds), nil
}

func gapRow(fault, of string, d []time.Duration) string {
	slices.Sort(d)
	ms := func(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
	return fmt.Sprintf("| %s | %s | %s | %s | %s |", fault, of, ms(d[0]), ms(d[len(d)/2]), ms(d[len(d)-1]))
}

// gapOnce is one round. A record's gap is the longest time between two acknowledgements
// in a row; the longest one of its class counts.
func gapOnce(ctx context.Context, r *rig, f gapFault, source *rand.Rand) (lost, others time.Duration, err error) {
	if err := errors.Join(r.awaitReady(ctx, patience), r.awaitOwned(ctx, patience)); err != nil {
		return 0, 0, err
	}
	owners := r.owners(ctx)
	var owning []*node
	for _, n := range r.nodes {
		if slices.Contains(owners, n) {
			owning = append(owning, n)
		}
	}
	if len(owning) < 2 {
		return 0, 0, errors.New("fewer than two nodes own anything")
	}
	victim := owning[source.IntN(len(owning))]
	writing, end := context.WithCancel(ctx)
	defer end()
	var wg sync.WaitGroup
	var longest [gapRecords]time.Duration
	var owned [gapRecords]bool
	begun := make(chan error, gapRecords)
	run := source.Uint64()
	for i := range gapRecords {
		name := fmt.Sprintf("gap/%x/%d", run, i)
		owned[i] = owners[cluster.Partition(cluster.Slot(name), len(owners))] == victim
		wg.Go(func() { longest[i] = writeOn(writing, r, victim, name, i, begun) })
	}
	for range gapRecords {
		err = errors.Join(err, <-begun)
	}
	wait(ctx, 500*time.Millisecond)
	if err == nil {
		say("%s of node %s", f.name, victim.name)
		err = f.do(r, victim)
	}
	wait(ctx, faultLasts)
	end()
	wg.Wait()
	err = errors.Join(err, r.heal())
	for i, d := range longest {
		if owned[i] {
			lost = max(lost, d)
		} else {
			others = max(others, d)
		}
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return lost, others, err
}

// writeOn writes one record again and again, by nodes other than the victim, until ctx
// ends. begun is told when the first write is acknowledged, or that none was for as long
// as patience: what the round before has upset may take a while.
func writeOn(ctx context.Context, r *rig, victim *node, name string, number int, begun chan<- error) (longest time.Duration) {
	var s *session
	defer func() {
		if s != nil {
			s.close()
		}
	}()
	told, since := false, time.Now()
	tell := func(err error) {
		if !told && (err == nil || time.Since(since) > patience) {
			begun <- err
			told = true
		}
	}
	var last time.Time
	for i := 0; ctx.Err() == nil; i++ {
		if s == nil {
			n := r.nodes[(number+i)%len(r.nodes)]
			if n == victim {
				n = r.nodes[(victim.index+1+number%(len(r.nodes)-1))%len(r.nodes)]
			}
			var err error
			if s, err = dial(ctx, n, name); err != nil {
				tell(err)
				wait(ctx, 10*time.Millisecond)
				continue
			}
		}
		a, said, err := s.ask(question{kind: write, name: name, version: anyVersion, value: fmt.Sprint(i)})
		switch {
		case err != nil:
			tell(err)
			s.close()
			s = nil
		case a.outcome == done:
			now := time.Now()
			if !last.IsZero() {
				longest = max(longest, now.Sub(last))
			}
			last = now
			tell(nil)
		default:
			tell(fmt.Errorf("a write was answered with action %d", said))
		}
		wait(ctx, 5*time.Millisecond)
	}
	if !last.IsZero() {
		longest = max(longest, time.Since(last)) // one that has not ended
	}
	return longest
}
