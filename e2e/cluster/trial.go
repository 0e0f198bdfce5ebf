//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// trial is a cluster with writers and watchers, something that disturbs it, and the
// judgement.
type trial struct {
	load
	seed     uint64
	dir      string
	writers  int // for each node
	watchers []*watcher
}

// settleIn is how long after the last fault watchers may take to see the newest state.
const settleIn = 30 * time.Second

func newTrial(r *rig, seed uint64, strict bool) *trial {
	t := &trial{seed: seed, dir: r.dir, writers: 2}
	t.rig, t.history, t.names, t.pace, t.strict = r, newHistory(), newNames(), 4*time.Millisecond, strict
	return t
}

// run lets writers and watchers work while disturb does, for as long as that takes, has
// everything healed, and judges. The error says which promises are broken.
func (t *trial) run(ctx context.Context, disturb func(ctx context.Context) error) (summary string, err error) {
	var writing, watching sync.WaitGroup
	writers, endWriters := context.WithCancel(ctx)
	defer writing.Wait()
	defer endWriters()
	watchers, endWatchers := context.WithCancel(ctx)
	defer watching.Wait()
	defer endWatchers()
	for i := range t.writers * len(t.rig.nodes) {
		writing.Go(func() { newWriter(&t.load, t.seed, i).run(writers) })
	}
	for i := range t.rig.nodes {
		w := newWatcher(&t.load, i)
		t.watchers = append(t.watchers, w)
		watching.Go(func() { w.run(watchers) })
	}
	disturbing, calm := context.WithCancel(ctx)
	defer calm()
	if t.hasty {
		go func() {
			select {
			case <-t.history.broken:
				calm()
			case <-disturbing.Done():
			}
		}()
	}
	err = disturb(disturbing)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if broken := violation(""); errors.As(err, &broken) {
		t.history.complain("%v", err)
	} else if err != nil {
		return "", err
	}
	if t.over() {
		endWriters()
		writing.Wait()
		return t.judge()
	}
	if err := t.rig.heal(); err != nil {
		return "", err
	}
	if err := t.rig.awaitReady(ctx, patience); err != nil {
		t.history.complain("%v", err)
	}
	wait(ctx, time.Second) // some writes to the healed cluster
	endWriters()
	writing.Wait()
	if err := t.settle(ctx); err != nil {
		return "", err
	}
	endWatchers()
	watching.Wait()
	return t.judge()
}

// over says that the trial need not go on: a promise is broken, and one is enough.
func (t *trial) over() bool {
	select {
	case <-t.history.broken:
		return t.hasty
	default:
		return false
	}
}

// settle reads every record at every node, and waits until all watchers see it so.
func (t *trial) settle(ctx context.Context) error {
	is := map[string]state{}
	for _, n := range t.rig.nodes {
		if err := t.readAll(ctx, n, is); err != nil {
			return err
		}
	}
	for name, s := range is {
		t.history.settle(name, s)
	}
	give := time.Now().Add(settleIn)
	for {
		var wrong []string
		for _, w := range t.watchers {
			wrong = append(wrong, w.differ(is)...)
		}
		if len(wrong) == 0 || ctx.Err() != nil || t.over() {
			return context.Cause(ctx)
		}
		if time.Now().After(give) {
			for _, text := range wrong[:min(len(wrong), 5)] {
				t.history.complain("%s (%d like this)", text, len(wrong))
			}
			return nil
		}
		wait(ctx, 50*time.Millisecond)
	}
}

// readAll reads every record at a node. That it cannot within a while is a broken promise.
func (t *trial) readAll(ctx context.Context, n *node, is map[string]state) error {
	w := newWriter(&t.load, t.seed, 1000+n.index)
	defer w.leave()
	give := time.Now().Add(settleIn)
	for _, r := range t.names.since(0) {
		for {
			if t.over() {
				return nil
			}
			if w.at == nil {
				s, err := dial(ctx, n, "last")
				if err != nil {
					if ctx.Err() != nil {
						return context.Cause(ctx)
					}
					if time.Now().After(give) {
						t.history.complain("node %s lets nobody in at the end: %v", n.name, err)
						return nil
					}
					wait(ctx, 100*time.Millisecond)
					continue
				}
				w.at = s
			}
			q, called := question{kind: read, name: r.name}, t.history.now()
			a, said, err := w.at.ask(q)
			t.history.add(w.client, q, called, a)
			if err == nil && a.outcome != unknown {
				is[r.name] = a.state
				break
			}
			if err != nil {
				w.leave()
			}
			if time.Now().After(give) {
				t.history.complain("%s: node %s does not read it at the end: %v %v", r.name, n.name, said, err)
				return nil
			}
			wait(ctx, 100*time.Millisecond)
		}
	}
	return nil
}

// judge says what happened, and whether that was right.
func (t *trial) judge() (string, error) {
	took := time.Since(t.history.began).Round(time.Second)
	wrong, slowest := t.history.check(t.dir)
	asked, acknowledged, lost, records := t.history.total()
	shown := int64(0)
	for _, w := range t.watchers {
		shown += w.shown.Load()
	}
	summary := fmt.Sprintf("%d nodes, %v: %d asked, %d acknowledged of lasting records alone, %d without an answer or refused, %d records, %d shown to subscribers, %d reconnects; slowest check %v",
		len(t.rig.nodes), took, asked, acknowledged, lost, records, shown, t.reconnects.Load(), slowest.Round(time.Millisecond))
	if len(wrong) > 0 {
		more := ""
		if len(wrong) > 12 {
			more = fmt.Sprintf("\n    and %d more", len(wrong)-12)
		}
		return summary, violation(fmt.Sprintf("%d promises are broken:\n    %s%s\n  logs are in %s", len(wrong), strings.Join(wrong[:min(len(wrong), 12)], "\n    "), more, t.dir))
	}
	if !t.hasty && (acknowledged < 200 || shown == 0) { // else there are more trials
		return summary, fmt.Errorf("only %d writes were acknowledged and %d shown: that proves nothing", acknowledged, shown)
	}
	return summary + "; linearizable, nothing lost, no version twice, nothing shown backwards", nil
}
