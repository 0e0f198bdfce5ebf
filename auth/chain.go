package auth

import "context"

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
