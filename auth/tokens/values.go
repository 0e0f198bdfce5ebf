package tokens

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// span is a duration as a body has it: milliseconds, or a text with a unit ("15m").
type span time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (s *span) UnmarshalJSON(b []byte) error {
	var ms float64
	if json.Unmarshal(b, &ms) == nil {
		if math.Abs(ms) > math.MaxInt64/float64(time.Millisecond)/2 {
			return fmt.Errorf("%v milliseconds are more than can be counted", ms)
		}
		*s = span(ms * float64(time.Millisecond))
		return nil
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	*s = span(d)
	return err
}

// moment is a time as a body has it: milliseconds since 1970 as JavaScript counts, or a
// text of RFC 3339.
type moment time.Time

// UnmarshalJSON implements json.Unmarshaler.
func (m *moment) UnmarshalJSON(b []byte) error {
	var ms float64
	if json.Unmarshal(b, &ms) == nil {
		if ms < 0 || ms > float64(time.Unix(1<<40, 0).UnixMilli()) {
			return fmt.Errorf("%v is no time in milliseconds since 1970", ms)
		}
		*m = moment(time.UnixMilli(int64(ms)))
		return nil
	}
	var t time.Time
	if err := json.Unmarshal(b, &t); err != nil {
		return err
	}
	*m = moment(t)
	return nil
}
