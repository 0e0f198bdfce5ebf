package cluster

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
)

func TestAFollowerStandsOnceForAStreamThatEndedWhenTheNextIsRefused(t *testing.T) {
	refused := fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	late := errors.New("no answer in time")
	for _, test := range []struct {
		name   string
		before int // how many voters go before this one
		ended  bool
		errs   []error
		want   []bool
	}{
		{"the first in turn stands at the first refusal", 0, true, []error{refused, refused}, []bool{true, false}},
		{"the second waits for its turn", 1, true, []error{refused, refused, refused, refused}, []bool{false, false, true, false}},
		{"a leader that is only late is waited for", 0, true, []error{late, late, refused}, []bool{false, false, true}},
		{"a leader that never took a stream may be starting", 0, false, []error{refused, refused}, []bool{false, false}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var f lostLeader
			if test.ended {
				f.ended("a")
			}
			var got []bool
			for _, err := range test.errs {
				got = append(got, f.failed("a", err, func() int { return test.before }))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("stood at %v, want %v", got, test.want)
			}
		})
	}
	f := lostLeader{leader: "a"}
	if f.failed("b", refused, func() int { return 0 }) {
		t.Error("stood for the end of another leader's stream")
	}
}
