//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// smallDisk is the size of the disk that is filled, in bytes.
const smallDisk = 256 << 20

// tmpfs is a small file system in memory.
type tmpfs struct{ dir string }

// newTmpfs mounts one. It needs root.
func newTmpfs(dir string, size int) (*tmpfs, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d,mode=700", size), "hadal", dir); err != nil {
		return nil, err
	}
	return &tmpfs{dir}, nil
}

// remove takes it away with all that is in it.
func (t *tmpfs) remove() error { return command("umount", "-l", t.dir) }

// foreign is a file that is not the node's.
func (t *tmpfs) foreign() string { return filepath.Join(t.dir, "foreign") }

// fill takes all that is left, to the last page, and goes on taking what becomes free
// until that is nothing any more.
func (t *tmpfs) fill() error {
	f, err := os.OpenFile(t.foreign(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for {
		_, err := f.Write(buf)
		switch {
		case err == nil:
		case errors.Is(err, syscall.ENOSPC) && len(buf) > 4096:
			buf = buf[:4096]
		case errors.Is(err, syscall.ENOSPC):
			return f.Close()
		default:
			return errors.Join(err, f.Close())
		}
	}
}

// free gives it back.
func (t *tmpfs) free() error { return os.Remove(t.foreign()) }

// fullWords is what tells an operator of a full disk.
var fullWords = regexp.MustCompile(`(?i)disk is full|no space|room`)

// fillDisk fills the disk of one node to the last byte, and has the others elect a leader
// meanwhile. The node must go on, say what is wrong, and come back when there is room; all
// records stay writable on the other nodes.
func fillDisk(ctx context.Context, o *ordeals) error {
	n := o.last()
	life, _ := n.life()
	since := n.logged()
	if err := o.small.fill(); err != nil {
		return err
	}
	defer func() { _ = o.small.free() }() // it is gone already unless something has failed
	if err := until(ctx, patience, func() string {
		if err := o.small.fill(); err != nil {
			return err.Error()
		}
		if ok, why := n.readiness(ctx); ok || !fullWords.MatchString(why) {
			return fmt.Sprintf("the disk of node %s is full, and its /readyz says %v %q", n.name, ok, why)
		}
		return ""
	}); err != nil {
		return err
	}
	_, why := n.readiness(ctx)
	say("/readyz of %s: %s", n.name, why)
	if err := o.writable(ctx, n); err != nil {
		return err
	}
	if err := o.newTerms(ctx); err != nil {
		return err
	}
	if err := o.writable(ctx, n); err != nil {
		return err
	}
	if now, _ := n.life(); now != life || !n.running() {
		return violation(fmt.Sprintf("node %s has ended because its disk is full: its log is %s", n.name, n.logFile))
	}
	if err := o.small.free(); err != nil {
		return err
	}
	err := o.isWhole(ctx, "there was room", n)
	if _, ended := n.life(); err == nil || !isClosed(ended) {
		return err
	}
	said, failed := n.saidSince(since)
	if failed != nil || !strings.Contains(said, hangs) {
		return errors.Join(err, failed)
	}
	say("%s has ended because its embedded server hung, and is started again", n.name)
	if err := n.start(o.binary); err != nil {
		return err
	}
	return o.isWhole(ctx, "it was started again", n)
}

// hangs is what a node says that ends because it cannot end its embedded server, to be
// started again by its supervisor: NATS has a deadlock that a full disk finds now and then.
const hangs = "hangs and does not end"

// isClosed says whether a channel is.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// newTerms has the leader change, so that every node has a term and a vote to write down.
func (o *ordeals) newTerms(ctx context.Context) error {
	term := func() uint64 {
		s, err := o.nodes[0].cluster(ctx)
		if err != nil || s.Leader == "" {
			return 0
		}
		return s.Term
	}
	rounds := 1
	if o.full {
		rounds = 4
	}
	for range rounds {
		before := term()
		leader := o.leader(ctx)
		if leader == nil {
			return violation("nobody leads the cluster")
		}
		// Two of three hear each other, one of them with a full disk.
		say("cut off %s, which leads", leader.name)
		if _, err := (&nemesis{rig: o.rig}).isolate(leader, true, true); err != nil {
			return err
		}
		wait(ctx, 3*time.Second)
		if err := o.net.heal(); err != nil {
			return err
		}
		if err := until(ctx, patience, func() string {
			if now := term(); now <= before {
				return fmt.Sprintf("the term was %d, and is %d", before, now)
			}
			return ""
		}); err != nil {
			return err
		}
	}
	return nil
}

// leader is the node that leads, as any says; nil when none does.
func (o *ordeals) leader(ctx context.Context) *node {
	for _, n := range o.nodes {
		s, err := n.cluster(ctx)
		if err != nil || s.Leader == "" {
			continue
		}
		for _, m := range s.Nodes {
			for _, n := range o.nodes {
				if m.ID == s.Leader && m.Name == n.name {
					return n
				}
			}
		}
	}
	return nil
}

// writable writes a record of every partition on all nodes but one.
func (o *ordeals) writable(ctx context.Context, but *node) error {
	for _, n := range o.others(but) {
		s, err := dial(ctx, n, "full")
		if err != nil {
			return violation(fmt.Sprintf("node %s lets nobody in while the disk of %s is full: %v", n.name, but.name, err))
		}
		for i := range 24 {
			name := fmt.Sprintf("full/%s/%d", n.name, i)
			err = until(ctx, patience, func() string {
				a, said, err := s.ask(question{kind: write, name: name, version: anyVersion, value: "x"})
				if err != nil || a.outcome != done {
					return fmt.Sprintf("record %s, owned by %s, cannot be written at node %s while the disk of %s is full: action %d, %v",
						name, o.ownerName(ctx, name), n.name, but.name, said, err)
				}
				return ""
			})
			if err != nil {
				break
			}
		}
		s.close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *ordeals) ownerName(ctx context.Context, name string) string {
	if n := o.owner(ctx, name); n != nil {
		return n.name
	}
	return "nobody"
}
