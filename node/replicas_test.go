package node

import (
	"testing"
	"time"
)

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
