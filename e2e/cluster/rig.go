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
	"strings"
	"time"

	"hadal/cluster"
	"hadal/node/admin"
	"hadal/store"
)

// rig is a cluster of real processes.
type rig struct {
	binary string
	dir    string // data, logs, configuration
	nodes  []*node
	spare  *node    // a place for one more, which is not started
	net    *network // nil: the nodes share this machine's loopback, and cannot be parted
	clocks bool     // the nodes are built so that their clocks can be moved
}

// newRig prepares the nodes; none runs yet. With parted each of them has a network of its
// own, which needs root. fault is what is wrong with them on purpose: a value of
// HADAL_MUTANT, or, as NAME=VALUE, a configuration that keeps less than is promised.
func newRig(binary, dir string, nodes int, parted bool, fault string) (*rig, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("the node is missing (make build makes it): %w", err)
	}
	r := &rig{binary: binary, dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, []byte(configuration), 0o600); err != nil {
		return nil, err
	}
	if parted && nodes > 1 {
		if r.net, err = newNetwork(nodes); err != nil {
			return nil, err
		}
	}
	base := 20000 + rand.IntN(100)*100 // below what the system takes for outgoing connections
	var join []string
	for i := range nodes + 1 {
		n := &node{name: string(rune('a' + i)), index: i, host: "127.0.0.1", config: config}
		if r.net != nil {
			n.host, n.netns = r.net.host(i), r.net.netns(i)
		}
		n.port, n.peerPort = base+10*i, base+10*i+2
		n.dir, n.logFile = filepath.Join(dir, n.name), filepath.Join(dir, n.name+".log")
		if i == nodes {
			r.spare = n
			break
		}
		join = append(join, n.peerAddress())
		r.nodes = append(r.nodes, n)
	}
	for _, n := range append(slices.Clone(r.nodes), r.spare) {
		switch {
		case strings.Contains(fault, "="):
			n.env = []string{fault}
		case fault != "":
			n.env = []string{"HADAL_MUTANT=" + fault}
		}
		n.env = append(n.env, "CLOCKJUMP_FILE="+n.clockFile())
		if nodes == 1 {
			continue // solo
		}
		n.env = append(n.env, "HADAL_CLUSTER_SECRET=no secret at all, but long enough")
		n.args = []string{
			"--node-name", n.name, "--cluster-name", "e2e", "--cluster-listen", n.peerAddress(),
			"--join", strings.Join(join, ","), "--bootstrap-expect", fmt.Sprint(nodes),
		}
	}
	return r, nil
}

// configuration has hardly a record stay in memory. Clients need not ping. A node that ends
// spreads its goodbyes over less time than usual: all wait for it that long.
const configuration = `
logLevel: info
allowOpenAuth: true
connectionEndpoints: [{type: ws-binary, options: {heartbeatInterval: 3600000}}]
auth: [{type: none}]
permission: {type: none}
records: {cacheBytes: 262144}
cluster: {drainTime: 3000}
`

// start starts all nodes at once and waits until all are ready.
func (r *rig) start(ctx context.Context) error {
	for _, n := range r.nodes {
		if err := n.start(r.binary); err != nil {
			return err
		}
	}
	return r.awaitReady(ctx, patience)
}

// awaitReady waits until all nodes are ready.
func (r *rig) awaitReady(ctx context.Context, within time.Duration) error {
	give := time.Now().Add(within)
	for _, n := range r.nodes {
		if err := n.awaitReady(ctx, time.Until(give)); err != nil {
			return err
		}
	}
	return nil
}

// awaitOwned waits until all nodes that can be asked agree on an owner that lives for
// every partition.
func (r *rig) awaitOwned(ctx context.Context, within time.Duration) error {
	give := time.After(within)
	for {
		owned, err := r.owned(ctx)
		if err == nil && owned {
			return nil
		}
		select {
		case <-give:
			return fmt.Errorf("not every partition has an owner after %v: %v", within, err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (r *rig) owned(ctx context.Context) (bool, error) {
	for _, n := range r.nodes {
		if !n.running() || n.isPaused() {
			continue
		}
		s, err := n.cluster(ctx)
		if err != nil {
			return false, err
		}
		alive := map[string]bool{}
		for _, m := range s.Nodes {
			alive[m.ID] = m.Alive
		}
		for _, p := range s.Partitions {
			if !alive[p.Owner] {
				return false, nil
			}
		}
	}
	return true, nil
}

// owner is the node that owns a record's partition, as another node says; nil when
// nobody knows.
func (r *rig) owner(ctx context.Context, name string) *node {
	owners := r.owners(ctx)
	if len(owners) == 0 {
		return nil
	}
	return owners[cluster.Partition(cluster.Slot(name), len(owners))]
}

// owners are the owners of all partitions, as some node says.
func (r *rig) owners(ctx context.Context) []*node {
	if len(r.nodes) == 1 {
		return r.nodes
	}
	for _, n := range r.nodes {
		if !n.running() || n.isPaused() {
			continue
		}
		s, err := n.cluster(ctx)
		if err != nil || s.Leader == "" {
			continue
		}
		var owners []*node
		for _, p := range s.Partitions {
			i := slices.IndexFunc(s.Nodes, func(m admin.NodeStatus) bool { return m.ID == p.Owner })
			var owner *node
			if i >= 0 {
				if j := slices.IndexFunc(r.nodes, func(n *node) bool { return n.name == s.Nodes[i].Name }); j >= 0 {
					owner = r.nodes[j]
				}
			}
			owners = append(owners, owner)
		}
		return owners
	}
	return nil
}

// heal undoes whatever is done to the nodes, and starts those that do not run.
func (r *rig) heal() error {
	var errs []error
	if r.net != nil {
		errs = append(errs, r.net.heal())
		if r.net.netem {
			for i := range r.nodes {
				_ = r.net.delay(i, 0) // an error when there is none
			}
		}
	}
	for _, n := range r.nodes {
		if r.clocks {
			errs = append(errs, n.setClock(0))
		}
		if n.isPaused() {
			errs = append(errs, n.resume())
		}
		if !n.running() {
			errs = append(errs, n.start(r.binary))
		}
	}
	return errors.Join(errs...)
}

// damaged is an error when a node has found in its log what must not be there, and so
// cannot be ready.
func (r *rig) damaged() error {
	for _, n := range r.nodes {
		said, err := n.saidSince(0)
		if err != nil {
			return err
		}
		for line := range strings.Lines(said) {
			if strings.Contains(line, store.ErrCorrupt.Error()) {
				return fmt.Errorf("node %s says: %s", n.name, strings.TrimSpace(line))
			}
		}
	}
	return nil
}

// close ends all processes and takes the networks away.
func (r *rig) close() error {
	var errs []error
	for _, n := range r.nodes {
		if n.running() {
			errs = append(errs, n.kill())
		}
	}
	if r.spare.running() {
		errs = append(errs, r.spare.kill())
	}
	if r.net != nil {
		errs = append(errs, r.net.close())
	}
	return errors.Join(errs...)
}
