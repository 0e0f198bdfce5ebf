package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"hadal/cluster"
)

// This file is how a node leaves: it gives away what it owns, so that nobody waits
// for it, then says goodbye to its clients, not to all at once. The cluster's table says
// that a node drains, so any node can be asked for it.

// handOver is how long a node that leaves waits until others own what it owned.
const handOver = 10 * time.Second

// followDrain does what the table says about this node's draining, until ctx ends.
func (n *Node) followDrain(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	var undo context.CancelFunc
	for {
		changed := n.place.Changed()
		switch now := n.drains(); {
		case now && undo == nil:
			n.log.Info("draining", "over", n.cfg.Cluster.DrainTime)
			n.setDraining(draining)
			var part context.Context
			part, undo = context.WithCancel(ctx)
			work.Go(func() {
				n.awaitHandOver(part)
				n.sayGoodbye(part)
				if part.Err() == nil {
					n.setDraining(drained)
				}
			})
		case !now && undo != nil:
			undo()
			work.Wait()
			undo = nil
			n.endpoint.Refill()
			n.setDraining(serving)
			n.log.Info("not draining any more")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if undo != nil {
				undo()
			}
			return nil
		}
	}
}

// drains says whether the table has this node leave.
func (n *Node) drains() bool {
	self := n.place.Self().ID
	for _, m := range n.place.Members() {
		if m.ID == self {
			return m.Draining
		}
	}
	return false
}

// askTime bounds the request of a node that ends to be drained. Where a majority is
// there, a leader is found by then.
const askTime = 4 * time.Second

// heirs says whether another node could own something.
func (n *Node) heirs() bool {
	self := n.place.Self().ID
	for _, m := range n.place.Members() {
		if m.ID != self && m.Alive && !m.Draining && m.Role == cluster.RoleCore {
			return true
		}
	}
	return false
}

// awaitHandOver waits until this node owns nothing, but not for ever: where nobody else
// can own it, it stays.
func (n *Node) awaitHandOver(ctx context.Context) {
	ctx, done := context.WithTimeout(ctx, handOver)
	defer done()
	for {
		changed := n.place.Changed()
		owned := 0
		for p := range n.place.Partitions() {
			if n.place.Owner(p).Here {
				owned++
			}
		}
		if owned == 0 {
			n.log.Info("what this node owned is handed over")
			return
		}
		if !n.heirs() {
			n.log.Warn("there is nobody to hand over to: all other nodes are dead or leave too", "partitions", owned)
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if n.drains() { // else it was undone
				n.log.Warn("not everything could be handed over", "partitions", owned)
			}
			return
		}
	}
}

// sayGoodbye sends the clients to other nodes, where these say where they are.
func (n *Node) sayGoodbye(ctx context.Context) {
	var urls []string
	self := n.place.Self().ID
	for _, m := range n.place.Members() {
		if m.ID != self && m.Alive && !m.Draining && m.URL != "" {
			urls = append(urls, m.URL)
		}
	}
	if err := n.endpoint.Drain(ctx, n.cfg.Cluster.DrainTime, urls); err != nil {
		return // it was undone, or the node ends
	}
	if len(urls) == 0 {
		n.log.Info("drained: the clients have been told to go, and none of the other nodes has said where it is (cluster.publicUrl)")
		return
	}
	n.log.Info("drained: the clients have been sent to other nodes", "urls", urls)
}

// leave has the cluster know that this node is about to end, and does what a drain does.
// A node alone has nobody to leave.
func (n *Node) leave(ctx context.Context) {
	ctx, done := context.WithTimeout(ctx, handOver+n.cfg.Cluster.DrainTime)
	defer done()
	asking, asked := context.WithTimeout(ctx, askTime)
	defer asked()
	err := n.place.Drain(asking, n.place.Self().ID, true)
	switch {
	case errors.Is(err, cluster.ErrAlone):
		return
	case err != nil:
		n.log.Warn("cannot hand over what this node owns: the others take it when it is gone", "err", err)
		return
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n.drainState() != drained { // followDrain sees to it
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// drainState is how far a drain has come.
type drainState int

const (
	serving drainState = iota
	draining
	drained
)

func (n *Node) setDraining(s drainState) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.draining = s
}

func (n *Node) drainState() drainState {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.draining
}
