package jetstream

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
)

func TestWhatIsTriedAgain(t *testing.T) {
	wrong := &apiError{Code: 400, ErrCode: 10071, Description: "wrong last sequence: 212"}
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("%w: %w", errMoved, wrong), true}, // another fence, or a compaction, came between
		{wrong, false},
		{&apiError{Code: 503}, true},
		{&apiError{Code: 404}, false},
		{nats.ErrNoResponders, true},
		{context.DeadlineExceeded, true},
		{errors.New("something else"), false},
	} {
		if got := passing(tc.err); got != tc.want {
			t.Errorf("%v is tried again: %v, want %v", tc.err, got, tc.want)
		}
	}
}
