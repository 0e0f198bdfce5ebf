package listen

import "time"

const (
	// clientBudget and nodeBudget are slowBudget for all patterns of one client, and
	// for all patterns of a topic on this node.
	clientBudget = 2 * time.Second
	nodeBudget   = 10 * time.Second
	// trusted is how many heavy matches in a row make a pattern one that is not meant
	// to waste time.
	trusted = 1000
	// heavySteps is from where on pattern times name are too many steps for the
	// engine of linear time to be always quick.
	heavySteps = 1 << 18
)

// budget is time that may be wasted. What was used comes back at a slowRefill of the
// time that passes.
type budget struct {
	used time.Duration
	at   time.Time // when used was brought up to date
}

// spend uses time up and says whether more than limit is used.
func (b *budget) spend(took time.Duration, now time.Time, limit time.Duration) (over bool) {
	b.used = max(0, b.used-now.Sub(b.at)/slowRefill) + took
	b.at = now
	return b.used > limit
}

// over says whether more than limit is used.
func (b *budget) over(now time.Time, limit time.Duration) bool {
	return b.used-now.Sub(b.at)/slowRefill > limit
}

// match says whether name matches p. Only the worker calls it. A pattern whose match
// may take long is not tried, and counts as not matching, while the patterns of its
// client have wasted more than their time, or those of all clients have and p has
// not proven itself: so whatever clients do, who comes back under new connections
// included, the worker has nearly all of its time for the others.
func (r *Registry) match(p *pattern, name string) bool {
	x := p.expr
	if x.off {
		return false
	}
	if !x.heavy(name) {
		ok, wasted := x.match(name, r.log)
		r.waste(p, wasted)
		return ok
	}
	now := time.Now()
	own := r.wasted[p.author]
	if own != nil && own.over(now, clientBudget) || r.total.over(now, nodeBudget) && (x.quick < trusted || own != nil) {
		r.skipped.Add(1)
		return false
	}
	ok, wasted := x.match(name, r.log)
	if wasted > 0 {
		x.quick = 0
	} else {
		x.quick++
	}
	r.waste(p, wasted)
	return ok
}

// waste books time that a pattern took.
func (r *Registry) waste(p *pattern, took time.Duration) {
	if p.expr.off {
		r.switchedOff.Add(1)
	}
	if took == 0 {
		return
	}
	now := time.Now()
	r.total.spend(took, now, nodeBudget)
	if p.author == 0 { // a client of another node, which has it pay there
		return
	}
	own := r.wasted[p.author]
	if own == nil {
		own = &budget{at: now}
		r.wasted[p.author] = own
	}
	own.spend(took, now, clientBudget)
}
