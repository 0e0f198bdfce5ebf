// Package rate holds token buckets that are one word of memory each, for where there
// are very many of them and every message asks one.
//
// A bucket is the moment at which it will be full again. One whose moment has passed
// is full, as one is that nobody has seen: so it can be forgotten, and the zero Bucket
// is a full one. golang.org/x/time/rate, which does more, takes a lock and reads the
// whole clock for each question, and says of no bucket whether it still matters.
package rate

import (
	"math"
	"sync/atomic"
	"time"
)

// Limit is how fast a bucket fills, and how much it holds. The zero Limit is none.
type Limit struct {
	cost int64 // nanoseconds in which one token comes
	span int64 // nanoseconds in which an empty bucket fills
}

// Per is perSecond tokens a second, of which a bucket holds burst; 0 is as many as
// come in a second. It is no limit when perSecond is 0.
func Per(perSecond, burst int) Limit {
	if perSecond <= 0 {
		return Limit{}
	}
	if burst <= 0 {
		burst = perSecond
	}
	cost := max(1, int64(time.Second)/int64(perSecond))
	if int64(burst) > math.MaxInt64/4/cost {
		return Limit{} // it would not be empty in a lifetime
	}
	return Limit{cost: cost, span: cost * int64(burst)}
}

// None says that l limits nothing.
func (l Limit) None() bool { return l.cost == 0 }

// Clock counts nanoseconds from when it was made, and one.
type Clock struct{ began time.Time }

// NewClock is a clock that begins now.
func NewClock() Clock { return Clock{time.Now()} }

// Now is the time by c.
func (c Clock) Now() int64 { return int64(time.Since(c.began)) + 1 }

// next is when a bucket that would be full at the moment full will be after a token
// was taken at now; with wait above 0 there is none, for that long.
func (l Limit) next(full, now int64) (after int64, wait time.Duration) {
	after = max(full, now) + l.cost
	return after, time.Duration(after - now - l.span)
}

// Bucket is one bucket, which many may ask at once. Its Limit and its Clock are always
// the same.
type Bucket struct{ full atomic.Int64 }

// Take takes a token at now. It returns 0, or, when there is none, how long it takes
// until one comes.
func (b *Bucket) Take(l Limit, now int64) time.Duration {
	for {
		full := b.full.Load()
		after, wait := l.next(full, now)
		if wait > 0 {
			return wait
		}
		if b.full.CompareAndSwap(full, after) {
			return 0
		}
	}
}

// Wait is what Take would say, and takes nothing.
func (b *Bucket) Wait(l Limit, now int64) time.Duration {
	_, wait := l.next(b.full.Load(), now)
	return max(0, wait)
}

// Full says that b is full at now: it can be forgotten.
func (b *Bucket) Full(now int64) bool { return b.full.Load() <= now }
