package auth

import (
	"context"
	"sync"
)

// Chain asks strategies in order; the first one with an opinion decides. When
// nobody has one, the attempt is refused without a reason (spec 06 §5). An
// error ends the chain: a strategy that could not judge must not hand its
// users on to a more generous one.
type Chain []Authenticator

// Authenticate implements Authenticator.
func (c Chain) Authenticate(ctx context.Context, a *Attempt) (Verdict, error) {
	for _, strategy := range c {
		v, err := strategy.Authenticate(ctx, a)
		if err != nil || v.Opinion != NoOpinion {
			return v, err
		}
	}
	return Verdict{Opinion: Refused}, nil
}

// runner is an Authenticator with work of its own: run does it until ctx ends.
type runner interface {
	Authenticator
	run(ctx context.Context)
}

// run does the work of all strategies that have some.
func (c Chain) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, a := range c {
		if r, ok := a.(runner); ok {
			wg.Go(func() { r.run(ctx) })
		}
	}
	<-ctx.Done()
	wg.Wait()
}
