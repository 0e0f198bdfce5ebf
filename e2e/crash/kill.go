//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// killed lets victims work in one directory and kills them. Some are killed before
// they have read back what the one before them left.
func killed(ctx context.Context, s *settings) (string, error) {
	l, rounds := newLedger(), s.rounds(6, 50)
	dir := filepath.Join(s.work, "kill")
	for round := range rounds {
		b := birth{binary: s.self, dir: dir, seed: s.rand.Uint64()}
		if round%5 == 4 {
			if err := killEarly(ctx, s, b, l); err != nil {
				return "", err
			}
		}
		before := l.acked
		after, err := killOnce(ctx, s, b, l)
		if err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		say("round %d of %d: %s acknowledged, killed after %v", round+1, rounds, count(l.acked-before), after.Round(time.Millisecond))
	}
	if err := lookOnce(ctx, birth{binary: s.self, dir: dir}, l); err != nil {
		return "", err
	}
	return fmt.Sprintf("kill -9: %d rounds, %s", rounds, l.summary()), wellUsed(l, rounds)
}

// killOnce lets a victim look and work, for less than a second, and kills it.
func killOnce(ctx context.Context, s *settings, b birth, l *ledger) (time.Duration, error) {
	p, err := begin(b, l)
	if err != nil {
		return 0, err
	}
	lived := s.within(time.Second)
	err = p.await(ctx)
	if err == nil {
		err = p.lasts(ctx, lived)
	}
	return lived, errors.Join(err, p.kill(), l.err())
}

// killEarly kills a victim that has only just begun.
func killEarly(ctx context.Context, s *settings, b birth, l *ledger) error {
	p, err := begin(b, l)
	if err != nil {
		return err
	}
	lived := s.within(300 * time.Millisecond)
	err = p.lasts(ctx, lived)
	say("and one that was killed %v after its start", lived.Round(time.Millisecond))
	return errors.Join(err, p.kill(), l.err())
}

// lookOnce starts a victim that only tells what is there and ends in good order.
func lookOnce(ctx context.Context, b birth, l *ledger) error {
	b.check = true
	p, err := begin(b, l)
	if err != nil {
		return err
	}
	return errors.Join(p.finish(ctx), l.err())
}

// summary is what a check found, when it found nothing.
func (f *facts) summary() string {
	return fmt.Sprintf("%s acknowledged, %s read, %s shown to a subscriber, %s unanswered writes found done; %d lost, %d gaps",
		count(f.acked), count(f.reads), count(f.broadcasts), count(f.survivors), f.lost, f.gaps)
}

// wellUsed is an error when too little happened for a check to mean something.
func wellUsed(l *ledger, rounds int) error {
	switch {
	case l.acked < 100*rounds || l.broadcasts == 0:
		return fmt.Errorf("only %s writes were acknowledged and %s shown: that proves nothing", count(l.acked), count(l.broadcasts))
	case l.refused > 0:
		return fmt.Errorf("%s requests were refused, and nothing should refuse them", count(l.refused))
	}
	return nil
}

// fenced lets a second owner take over while the first one works: the first must
// have nothing acknowledged any more, and the second begins where it ended.
func fenced(ctx context.Context, s *settings) (string, error) {
	l, rounds := newLedger(), s.rounds(1, 10)
	dir := filepath.Join(s.work, "fence")
	for round := range rounds {
		before := l.facts
		if err := fenceOnce(ctx, s, birth{binary: s.self, dir: dir, seed: s.rand.Uint64()}, l); err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		say("round %d of %d: %s acknowledged, %s refused", round+1, rounds, count(l.acked-before.acked), count(l.refused-before.refused))
		if l.refused == before.refused {
			return "", errors.New("nothing was refused: the first owner was not writing any more when it was replaced")
		}
	}
	if err := lookOnce(ctx, birth{binary: s.self, dir: dir}, l); err != nil {
		return "", err
	}
	refused := l.refused
	l.refused = 0
	return fmt.Sprintf("fence: %d takeovers, %s refused to the owner that was replaced, %s", rounds, count(refused), l.summary()), wellUsed(l, rounds)
}

// fenceOnce lets two owners work. The first one holds requests for two seconds
// before it refuses them all.
func fenceOnce(ctx context.Context, s *settings, b birth, l *ledger) error {
	b.second = true
	p, err := begin(b, l)
	if err != nil {
		return err
	}
	err = p.await(ctx)
	if err == nil {
		err = p.lasts(ctx, 2500*time.Millisecond+s.within(500*time.Millisecond))
	}
	return errors.Join(err, p.kill(), l.err())
}
