package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestALookAtReplicasThatTakesLongHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithTimeout(t.Context(), 10*replicasEvery+replicasEvery/2)
		defer end()
		looked := 0
		lookEach(ctx,
			func(ctx context.Context) { <-ctx.Done() },
			func(context.Context) { looked++ })
		if looked != 10 {
			t.Errorf("beside one that hangs there were %d looks, want 10", looked)
		}
	})
}

func TestANumberOfReplicasIsChangedWhenItIsTheSameTwiceAndNotSoonAfterAFailure(t *testing.T) {
	now := time.Now()
	r := replicaNeed{has: 3}
	for i, c := range []struct {
		wanted int
		after  time.Duration
		due    bool
	}{
		{wanted: 3}, {wanted: 3}, // as it is
		{wanted: 5}, {wanted: 3}, {wanted: 3}, // came and went
		{wanted: 5}, {wanted: 5, due: true}, // stays
		{wanted: 5, after: replicasPause / 2}, // has failed
		{wanted: 5, after: replicasPause, due: true},
	} {
		if got := r.due(c.wanted, now.Add(c.after)); got != c.due {
			t.Errorf("look %d: due is %v, want %v", i, got, c.due)
		}
		if c.due {
			r.after = now.Add(replicasPause)
		}
	}
}
