//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// A mutant must be found out within so many rounds.
const mutantRounds = 40

// hunt lets a mutant live until the ledger says what is wrong with it. A round
// returns nil when nothing was noticed. The store may notice first, and refuse to go
// on: that is well, and not what is to be proved, so it begins anew.
func hunt(s *settings, name string, round func(b birth, l *ledger) error) (string, error) {
	if _, err := os.Stat(s.mutant); err != nil {
		return "", fmt.Errorf("the mutant build is missing (make test-crash makes it): %w", err)
	}
	l := newLedger()
	b := birth{binary: s.mutant, mutant: name, dir: filepath.Join(s.work, "mutant-"+name+"-1")}
	for i := range mutantRounds {
		b.seed = s.rand.Uint64()
		err := round(b, l)
		if wrong := l.err(); wrong != nil {
			say("round %d: the ledger says: %v", i+1, wrong)
			return fmt.Sprintf("mutant %s: caught in round %d", name, i+1), nil
		}
		var itself violation
		switch {
		case err == nil:
			say("round %d: nothing noticed", i+1)
		case errors.As(err, &itself):
			say("round %d: the store noticed by itself: %v", i+1, itself)
			l = newLedger()
			b.dir = filepath.Join(s.work, fmt.Sprintf("mutant-%s-%d", name, i+2))
		default:
			return "", err
		}
	}
	return "", fmt.Errorf("mutant %s was not caught in %d rounds, %s acknowledged", name, mutantRounds, count(l.acked))
}

// mutantPurge is a store that purges its log before the state has what was in it.
func mutantPurge(ctx context.Context, s *settings) (string, error) {
	return hunt(s, "purge", func(b birth, l *ledger) error {
		_, err := killOnce(ctx, s, b, l)
		return err
	})
}

// mutantFence is a store whose appends do not name what they follow.
func mutantFence(ctx context.Context, s *settings) (string, error) {
	return hunt(s, "fence", func(b birth, l *ledger) error { return fenceOnce(ctx, s, b, l) })
}

// mutantSync is a server that syncs nothing.
func mutantSync(ctx context.Context, s *settings) (string, error) {
	v, err := newVolume(s.work, "mutant", volumeSize)
	if err != nil {
		return "", err
	}
	summary, err := hunt(s, "sync", func(b birth, l *ledger) error {
		b.dir = filepath.Join(v.dir, filepath.Base(b.dir))
		return cutOnce(ctx, b, v, l, true, s.within(time.Second))
	})
	return summary, errors.Join(err, v.remove())
}
