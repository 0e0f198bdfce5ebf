//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// volumeSize is enough for what a victim writes between two purges, many times.
const volumeSize = 512 << 20

// cutsEach is how often the power goes on one file system. The first cut finds a
// data directory that is young: files, and directories of files, that nothing has
// made durable but their own fsyncs.
const cutsEach = 3

// infancy is about how long a victim needs to make its data directory and to have
// the first writes acknowledged.
const infancy = 800 * time.Millisecond

// powerless cuts the power: first while data directories come into being, then under
// load.
func powerless(ctx context.Context, s *settings) (string, error) {
	total, young, rounds := facts{}, s.rounds(2, 6), s.rounds(3, 12)
	for i := range young {
		if err := powerlessOn(ctx, s, &total, func(b birth, v *volume, l *ledger) error {
			lived := s.within(infancy)
			err := cutOnce(ctx, b, v, l, false, lived)
			say("young directory %d of %d: %s acknowledged, power gone %v after the start", i+1, young, count(l.acked), lived.Round(time.Millisecond))
			return err
		}); err != nil {
			return "", fmt.Errorf("young directory %d: %w", i+1, err)
		}
	}
	for round := 0; round < rounds; {
		if err := powerlessOn(ctx, s, &total, func(b birth, v *volume, l *ledger) error {
			for cuts := 0; cuts < cutsEach && round < rounds; cuts++ {
				round++
				b.seed = s.rand.Uint64()
				before, lived := l.acked, s.within(time.Second)
				if err := cutOnce(ctx, b, v, l, true, lived); err != nil {
					return err
				}
				say("round %d of %d: %s acknowledged, power gone after %v", round, rounds, count(l.acked-before), lived.Round(time.Millisecond))
			}
			return wellUsed(l, 1)
		}); err != nil {
			return "", fmt.Errorf("round %d: %w", round, err)
		}
	}
	return fmt.Sprintf("power cut: %d rounds and %d young directories, %s", rounds, young, total.summary()), nil
}

// powerlessOn has cuts made on a new file system, and looks at what is there at
// last.
func powerlessOn(ctx context.Context, s *settings, total *facts, cuts func(b birth, v *volume, l *ledger) error) error {
	l := newLedger()
	v, err := newVolume(s.work, "power", volumeSize)
	if err != nil {
		return err
	}
	b := birth{binary: s.self, dir: filepath.Join(v.dir, "data"), seed: s.rand.Uint64()}
	if err := cuts(b, v, l); err != nil {
		return err
	}
	if err := lookOnce(ctx, b, l); err != nil {
		return fmt.Errorf("a look afterwards: %w", err)
	}
	total.add(l.facts)
	return v.remove()
}

// cutOnce lets a victim live, and cuts the power a time after its load has begun,
// or, if not loaded, after its start.
func cutOnce(ctx context.Context, b birth, v *volume, l *ledger, loaded bool, lived time.Duration) error {
	p, err := begin(b, l)
	if err != nil {
		return err
	}
	if loaded {
		err = p.await(ctx)
	}
	if err == nil {
		err = p.lasts(ctx, lived)
	}
	if err == nil {
		err = p.freeze()
	}
	if err != nil {
		return errors.Join(err, p.kill(), l.err())
	}
	return errors.Join(v.cut(p.kill), l.err())
}

// add sums up what several ledgers counted.
func (f *facts) add(o facts) {
	f.acked += o.acked
	f.refused += o.refused
	f.reads += o.reads
	f.broadcasts += o.broadcasts
	f.survivors += o.survivors
	f.lost += o.lost
	f.gaps += o.gaps
}
