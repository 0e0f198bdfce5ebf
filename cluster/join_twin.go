package cluster

import (
	"context"
	"fmt"
	"time"
)

// A machine that is cloned brings a copy of its data directory, and with it a process that
// takes itself for the node that runs already. Two that vote as one could make two leaders,
// so such a process is looked for before this one takes part in anything. What
// that does not find is found by the leader, which is asked to take in a node that runs.

// twin says whether another process has the same id.
func (n NodeInfo) twin(other NodeInfo) bool {
	return n.ID == other.ID && n.Run != "" && other.Run != "" && n.Run != other.Run
}

// twinRounds is how often Twin asks: everybody that is known, and whom they name.
const twinRounds = 2

// Twin looks for another process with this node's id before this one takes part in
// anything, for at most so long, and returns ErrCopied if there is one: two that vote as one
// node could make two leaders. That it cannot find one proves nothing.
func (j *Joiner) Twin(ctx context.Context, within time.Duration) error {
	for range twinRounds {
		asking, done := context.WithTimeout(ctx, within/twinRounds)
		v, _ := j.round(asking)
		done()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := v.copied(); err != nil {
			return err
		}
	}
	return nil
}

// copied is the error when there is a twin.
func (v view) copied() error {
	if v.twin == nil {
		return nil
	}
	return fmt.Errorf("node %s at %s: %w", v.twin.Node.Name, v.twin.address, ErrCopied)
}
