//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"hadal/bench/target"
	"hadal/node/admin"
)

// joins has nodes come in every way: one by one in any order, all at once, again and
// again, and without the data that they had; under load, once there is a cluster.
func joins(ctx context.Context, s *settings) (summary string, err error) {
	if s.nodes < 3 {
		return "", errors.New("joins needs three nodes")
	}
	r, err := newRig(s.node, filepath.Join(s.work, "nodes"), s.nodes, s.parted, "")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	source := rand.New(rand.NewPCG(s.seed, 2))
	for _, i := range source.Perm(len(r.nodes)) {
		say("start %s", r.nodes[i].name)
		if err := r.nodes[i].start(r.binary); err != nil {
			return "", err
		}
		wait(ctx, time.Duration(source.IntN(3000))*time.Millisecond)
	}
	if err := r.awaitReady(ctx, patience); err != nil {
		return "", err
	}
	made, err := r.agreed(ctx, patience)
	if err != nil {
		return "", err
	}
	t := newTrial(r, s.seed, false)
	summary, err = t.run(ctx, func(ctx context.Context) error {
		for _, n := range r.nodes {
			for range 3 {
				say("restart %s", n.name)
				if err := errors.Join(n.kill(), n.start(r.binary), n.awaitReady(ctx, patience)); err != nil {
					return violation(err.Error())
				}
			}
		}
		for _, n := range r.nodes {
			if _, err := r.agreed(ctx, patience); err != nil {
				return violation(err.Error())
			}
			say("wipe %s", n.name)
			if err := errors.Join(n.kill(), os.RemoveAll(n.dir), n.start(r.binary)); err != nil {
				return err
			}
			began := time.Now()
			if err := n.awaitReady(ctx, 2*patience); err != nil {
				return violation(fmt.Sprintf("a node without its data does not join: %v", err))
			}
			say("%s is ready again after %v", n.name, time.Since(began).Round(time.Millisecond))
		}
		say("stop all, start all")
		for _, n := range r.nodes {
			if err := n.stop(); err != nil {
				return violation(err.Error())
			}
		}
		if err := r.heal(); err != nil {
			return err
		}
		if err := r.awaitReady(ctx, patience); err != nil {
			return violation(err.Error())
		}
		now, err := r.agreed(ctx, patience)
		if err != nil {
			return violation(err.Error())
		}
		if now != made {
			return violation(fmt.Sprintf("the cluster was %s, and is %s", made, now))
		}
		return nil
	})
	return summary, err
}

// newest is how many changes a replica may lack that is up to date.
const newest = 64

// agreed waits until all nodes know the same cluster with as many living nodes as there
// are and no other, as many voters as so many nodes can have, an owner for each partition, and every stream whole; it returns the cluster's id.
func (r *rig) agreed(ctx context.Context, within time.Duration) (id string, err error) {
	give := time.Now().Add(within)
	for {
		if id, err = r.agree(ctx); err == nil {
			return id, nil
		}
		if time.Now().After(give) {
			return "", fmt.Errorf("the nodes do not agree after %v: %w", within, err)
		}
		if err := target.Pause(ctx, 100*time.Millisecond); err != nil {
			return "", err
		}
	}
}

func (r *rig) agree(ctx context.Context) (id string, err error) {
	for _, n := range r.nodes {
		s, err := n.cluster(ctx)
		if err != nil {
			return "", fmt.Errorf("node %s: %w", n.name, err)
		}
		if id != "" && s.ID != id {
			return "", fmt.Errorf("node %s is in cluster %s, others in %s", n.name, s.ID, id)
		}
		id = s.ID
		var alive []string
		voters := 0
		for _, m := range s.Nodes {
			if m.Alive {
				alive = append(alive, m.ID)
			}
			if m.Voter {
				voters++
			}
		}
		if len(alive) != len(r.nodes) || len(s.Nodes) != len(r.nodes) {
			return "", fmt.Errorf("node %s counts %d nodes, %d of them alive", n.name, len(s.Nodes), len(alive))
		}
		if want := min(len(r.nodes)-1+len(r.nodes)%2, 5); voters != want {
			return "", fmt.Errorf("node %s counts %d voters, not %d", n.name, voters, want)
		}
		for _, p := range s.Partitions {
			if !slices.Contains(alive, p.Owner) {
				return "", fmt.Errorf("node %s knows no living owner of partition %d", n.name, p.Partition)
			}
			for _, id := range p.Replicas {
				if !slices.Contains(alive, id) {
					return "", fmt.Errorf("node %s has partition %d kept by %s, which is not alive", n.name, p.Partition, id)
				}
			}
			if len(p.Streams) != 2 {
				return "", fmt.Errorf("node %s can say of %d of the two streams of partition %d", n.name, len(p.Streams), p.Partition)
			}
			for _, st := range p.Streams {
				// Under writes a replica lacks the newest one or two whenever it is looked at.
				behind := slices.ContainsFunc(st.Behind, func(b admin.Behind) bool { return b.Offline || b.Lag > newest })
				if st.Current+len(st.Behind) < st.Replicas || behind {
					return "", fmt.Errorf("node %s has %d of %d replicas of %s current, which %s leads; behind: %+v", n.name, st.Current, st.Replicas, st.Name, st.Leader, st.Behind)
				}
			}
		}
	}
	return id, nil
}

// idleFor is how long an idle cluster is looked at.
const idleFor = time.Minute

// rest is what nodes take that nobody uses.
func rest(ctx context.Context, s *settings) (summary string, err error) {
	err = withRig(ctx, s, s.node, "nodes", "", func(r *rig) error {
		wait(ctx, 10*time.Second)
		used := make([]time.Duration, len(r.nodes))
		for i, n := range r.nodes {
			used[i] = target.CPU(n.pid())
		}
		began := time.Now()
		wait(ctx, idleFor)
		for i, n := range r.nodes {
			cpu := float64(target.CPU(n.pid())-used[i]) / float64(time.Since(began)) * 100
			summary += fmt.Sprintf("%s %.1f %% of a core, %d MB; ", n.name, cpu, target.RSS(n.pid())>>20)
		}
		return ctx.Err()
	})
	return summary, err
}
