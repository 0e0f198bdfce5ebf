package clustertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// Torment is what is done to a network, and how it is repaired.
type Torment struct {
	// Faults is how many there are, and Between how long one may last before the next:
	// from a tenth of it. Some are repaired then, others only later.
	Faults  int
	Between time.Duration
	// Start starts a machine and what runs on it.
	Start func(index int)
	// Others are faults of what else there is, a store say; each says what it did and
	// returns how to repair that, or nil.
	Others []func(r *rand.Rand) (what string, repair func())
}

// Torment does it, and returns when all faults are repaired and all machines run. What
// they did to the cluster may last longer.
func (n *Net) Torment(ctx context.Context, t Torment) error {
	r := n.Rand("torment")
	var repairs []func()
	repairAll := func() {
		for _, repair := range repairs {
			repair()
		}
		repairs = nil
	}
	for range t.Faults {
		if repair := n.fault(r, t); repair != nil {
			repairs = append(repairs, repair)
		}
		d := t.Between/10 + time.Duration(r.Int64N(int64(t.Between)))
		if err := n.Sleep(ctx, "torment", d); err != nil {
			return err
		}
		if r.IntN(5) < 3 {
			repairAll()
		}
	}
	repairAll()
	n.Heal()
	for i := range n.machines {
		n.resume(i)
		n.startAgain(i, t.Start)
	}
	return nil
}

// node is the node of a machine, or nil.
func (n *Net) node(index int) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.machines[index].node
}

func (n *Net) resume(index int) {
	if node := n.node(index); node != nil {
		node.Resume()
	}
}

func (n *Net) startAgain(index int, start func(int)) {
	if n.node(index) == nil {
		start(index)
	}
}

// fault does one thing, and returns how to undo it.
func (n *Net) fault(r *rand.Rand, t Torment) (repair func()) {
	a := r.IntN(len(n.machines))
	b := (a + 1 + r.IntN(max(1, len(n.machines)-1))) % len(n.machines)
	kind := r.IntN(10 + len(t.Others))
	switch kind {
	case 0, 1:
		node := n.node(a)
		if node == nil {
			t.Start(a)
			return nil
		}
		node.Crash()
		return func() { n.startAgain(a, t.Start) }
	case 2, 3:
		if node := n.node(a); node != nil {
			node.Pause()
			return node.Resume
		}
		return nil
	case 4, 5:
		n.Partition(n.split(r)...)
		return n.Heal
	case 6:
		n.Cut(a, b)
		return n.Heal
	case 7:
		n.Slow(a, b, time.Duration(1+r.IntN(300))*time.Millisecond)
		return nil
	case 8:
		if r.IntN(2) == 0 {
			n.Reset(a, b)
		} else {
			n.Overflow(a, b)
		}
		return nil
	case 9:
		if r.IntN(2) == 0 {
			n.Move(r.IntN(n.cfg.Partitions))
			return nil
		}
		n.SetLoss(0.2)
		return func() { n.SetLoss(0) }
	default:
		what, repair := t.Others[kind-10](r)
		n.History.note(Event{What: Fault, Note: what})
		return repair
	}
}

// split divides the machines into two groups, none of them empty if there are two.
func (n *Net) split(r *rand.Rand) [][]int {
	groups := make([][]int, 2)
	for i, j := range r.Perm(len(n.machines)) {
		g := r.IntN(2)
		if i < 2 {
			g = i
		}
		groups[g] = append(groups[g], j)
	}
	return groups
}

// Settled says whether the arbiter and all running nodes agree on the table, all
// machines of it are alive, every partition has its owner and every pair its link.
func (n *Net) Settled() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	v := n.table.view
	for _, m := range v.members {
		if !m.Alive {
			return fmt.Errorf("%s counts as dead", m.Name)
		}
	}
	for p, o := range v.owners {
		if o.Owner == "" {
			return fmt.Errorf("partition %d has no owner", p)
		}
	}
	for i, m := range n.machines {
		switch {
		case m.node == nil:
			return fmt.Errorf("%s does not run", m.name)
		case m.node.view.index != v.index:
			return fmt.Errorf("%s knows table %d, not %d", m.node.Name(), m.node.view.index, v.index)
		}
		for _, o := range n.machines[i+1:] {
			l := n.links[pair(m.index, o.index)]
			if l == nil || l.broken || !l.up[0] || !l.up[1] {
				return fmt.Errorf("%s has no link to %s", m.name, o.name)
			}
		}
	}
	return nil
}
